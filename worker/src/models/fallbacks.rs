//! Several models as one: the first that answers. Around each call: a place among the provider's parallel calls, the target's own
//! settings, and what the answer costs.
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use runmill_shared::{
    App,
    domain::{chat::ModelResponse, model::Target},
    limits::{Parallel, Permit},
};

use super::{ChatModel, ChatRequest, EventStream, ModelError, ModelErrorKind, ModelEvent};

pub(super) struct Fallbacks {
    /// Of the first.
    name: String,
    candidates: Arc<[Candidate]>,
}

struct Candidate {
    target: Target,
    model: Arc<dyn ChatModel>,
    cap: Option<Cap>,
}

/// How many calls at once the server takes from all workers together.
struct Cap {
    parallel: Parallel,
    key: String,
    most: u32,
}

impl Fallbacks {
    /// At least one.
    pub fn new(app: &App, models: Vec<(Target, Arc<dyn ChatModel>)>) -> Self {
        let candidate = |(target, model): (Target, Arc<dyn ChatModel>)| {
            let provider = target.provider.as_str();
            let cap = app.config.models.parallel.get(provider).map(|most| Cap {
                parallel: app.parallel.clone(),
                // Another server has a limit of its own.
                key: target.base_url.as_ref().map_or_else(|| provider.to_owned(), |url| format!("{provider}@{url}")),
                most: *most,
            });
            Candidate { target, model, cap }
        };
        let candidates: Arc<[Candidate]> = models.into_iter().map(candidate).collect();
        Self { name: candidates.first().map(|c| c.target.spec()).unwrap_or_default(), candidates }
    }
}

impl Candidate {
    /// The answer, and the place that it takes for as long as it streams. Waiting for a place is no silence of the model.
    async fn ask(&self, request: &ChatRequest) -> (Option<Permit>, Result<EventStream, ModelError>) {
        let permit = match &self.cap {
            Some(cap) => Some(cap.parallel.acquire(&cap.key, cap.most).await),
            None => None,
        };
        let own = (self.target.temperature.is_some() || self.target.max_tokens.is_some()).then(|| ChatRequest {
            temperature: self.target.temperature.or(request.temperature),
            max_tokens: self.target.max_tokens.or(request.max_tokens),
            ..request.clone()
        });
        (permit, self.model.stream(own.as_ref().unwrap_or(request)).await)
    }

    fn priced(&self, mut response: ModelResponse) -> ModelResponse {
        response.usage.cost_micros = self.target.prices.map_or(0, |prices| prices.cost(&response.usage));
        response.answered_by = self.target.spec();
        response
    }
}

/// Whether another model may answer what this one did not.
fn another_may(kind: ModelErrorKind) -> bool {
    use ModelErrorKind as K;
    match kind {
        // Its server is busy, away, silent or broken; or it does not let us in, or may not be reached.
        K::RateLimited | K::Overloaded | K::Network | K::IdleTimeout | K::Truncated | K::Malformed | K::Auth | K::Blocked => true,
        // It does not know the model, or an option that others know.
        K::InvalidRequest => true,
        // The engine shortens the conversation, which keeps the model that was wanted.
        K::ContextOverflow => false,
        // What one provider refuses for its content is not taken to the next until one does it.
        K::ContentFilter => false,
    }
}

/// What is said when nobody answered: what a later try may get past, else what the first said.
fn sum_up(mut failures: Vec<ModelError>) -> ModelError {
    if failures.is_empty() {
        return ModelError::new(ModelErrorKind::Truncated);
    }
    let at = failures.iter().position(ModelError::retryable).unwrap_or(0);
    failures.swap_remove(at)
}

#[async_trait]
impl ChatModel for Fallbacks {
    fn name(&self) -> &str {
        &self.name
    }

    /// Once an event has been passed on there is no other model for this answer: its error goes up.
    async fn stream(&self, request: &ChatRequest) -> Result<EventStream, ModelError> {
        let candidates = self.candidates.clone();
        let Some(first) = candidates.first() else { return Err(sum_up(Vec::new())) };
        // What the others would be asked is kept only where there are others.
        let kept = (candidates.len() > 1).then(|| request.clone());
        let mut asked = Some(first.ask(request).await);
        Ok(Box::pin(async_stream::stream! {
            let mut failures = Vec::new();
            for (i, candidate) in candidates.iter().enumerate() {
                // The place of the one that failed was given back with its answer.
                let (_permit, events) = match (asked.take(), &kept) {
                    (Some(asked), _) => asked,
                    (None, Some(request)) => candidate.ask(request).await,
                    (None, None) => break,
                };
                let failed = match events {
                    Err(e) => e,
                    Ok(mut events) => {
                        let mut began = false;
                        loop {
                            match events.next().await {
                                Some(Ok(ModelEvent::Done(response))) => {
                                    yield Ok(ModelEvent::Done(candidate.priced(response)));
                                    return;
                                }
                                Some(Ok(event)) => {
                                    began = true;
                                    yield Ok(event);
                                }
                                Some(Err(e)) if began => {
                                    yield Err(e);
                                    return;
                                }
                                Some(Err(e)) => break e,
                                None if began => {
                                    yield Err(ModelError::new(ModelErrorKind::Truncated));
                                    return;
                                }
                                None => break ModelError::new(ModelErrorKind::Truncated),
                            }
                        }
                    }
                };
                if !another_may(failed.kind) {
                    yield Err(failed);
                    return;
                }
                if let Some(next) = candidates.get(i + 1) {
                    let (model, next) = (candidate.target.spec(), next.target.spec());
                    tracing::info!(model, next, code = failed.kind.code(), "the next model is asked");
                    metrics::counter!("runmill_model_fallbacks_total", "model" => model, "code" => failed.kind.code()).increment(1);
                }
                failures.push(failed);
            }
            yield Err(sum_up(failures));
        }))
    }
}
