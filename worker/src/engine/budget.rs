//! What a run may use. Nothing is begun that is known to go beyond it; an answer that is whole when a limit is reached still counts.
use std::time::Duration;

use runmill_shared::{
    App,
    domain::{
        agent::Budget,
        run::{Claimed, RunUsage},
    },
};

use super::Failure;

pub const EXHAUSTED: &str = "BUDGET_EXHAUSTED";

fn exhausted(what: &str) -> Failure {
    Failure::run(EXHAUSTED, format!("the run has used its budget of {what}"), false)
}

/// Whether another model call may begin.
pub fn check(budget: &Budget, used: &RunUsage) -> Result<(), Failure> {
    if tokens_left(budget, used) == Some(0) {
        return Err(exhausted("tokens"));
    }
    if budget.max_cost_micros.is_some_and(|most| used.cost_micros >= most) {
        return Err(exhausted("cost"));
    }
    Ok(())
}

pub fn tokens_left(budget: &Budget, used: &RunUsage) -> Option<u64> {
    budget.max_tokens.map(|most| most.saturating_sub(used.input_tokens + used.output_tokens))
}

/// What is said of an answer that broke off because no more tokens were left for it.
pub fn cut_off() -> Failure {
    exhausted("tokens")
}

/// How much longer the run may be executed: what has gone of `runs.run_timeout` is what it took so far, waiting not counted.
pub fn time_left(app: &App, run: &Claimed, budget: &Budget) -> Option<Duration> {
    let most = Duration::from_secs(budget.max_seconds?);
    let left = run.run_deadline.since(app.clock.now());
    Some(most.saturating_sub(app.config.runs.run_timeout.saturating_sub(left)))
}

pub fn out_of_time() -> Failure {
    exhausted("running time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_is_reached_lets_nothing_begin() {
        let budget = Budget { max_tokens: Some(100), max_cost_micros: Some(50), max_seconds: None };
        let used = |input_tokens, output_tokens, cost_micros| RunUsage {
            input_tokens,
            output_tokens,
            cost_micros,
            ..RunUsage::default()
        };
        assert!(check(&budget, &used(60, 39, 49)).is_ok());
        assert_eq!(tokens_left(&budget, &used(60, 39, 0)), Some(1));
        for (used, what) in [(used(60, 40, 0), "tokens"), (used(200, 0, 0), "tokens"), (used(0, 0, 50), "cost")] {
            let Err(Failure::Run { error, .. }) = check(&budget, &used) else { panic!("{used:?}") };
            assert!(error.code == EXHAUSTED && !error.retryable && error.message.ends_with(what), "{error:?}");
        }
        assert!(check(&Budget::default(), &used(u64::MAX / 4, 1, u64::MAX)).is_ok());
    }
}
