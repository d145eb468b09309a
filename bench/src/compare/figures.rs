//! What was measured, and how it is told.
use std::collections::BTreeMap;

use super::peer::Peer;
use crate::load::quantile;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Accepted,
    AcceptP99,
    Finished,
    Cpu,
    CpuAll,
    Rest,
    Crowd,
    CrowdMemory,
    Start,
    First,
    Generator,
    RecoveryP50,
    RecoveryP99,
    Interrupted,
    Lost,
    Doubled,
    AskedAgain,
}

/// Which of two figures is the better.
#[derive(PartialEq, Eq)]
enum Better {
    More,
    Less,
    /// Is told, and compared with nothing.
    Neither,
}

impl Row {
    const ALL: [Self; 17] = [
        Self::Accepted,
        Self::AcceptP99,
        Self::Finished,
        Self::Cpu,
        Self::CpuAll,
        Self::Rest,
        Self::Crowd,
        Self::CrowdMemory,
        Self::Start,
        Self::First,
        Self::RecoveryP50,
        Self::RecoveryP99,
        Self::Interrupted,
        Self::Lost,
        Self::Doubled,
        Self::AskedAgain,
        Self::Generator,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Accepted => "runs accepted a second, 16 clients, executing meanwhile",
            Self::AcceptP99 => "the same, p99 of an accept",
            Self::Finished => "runs finished a second, from the first accept to the last end",
            Self::Cpu => "processor time a run, own processes",
            Self::CpuAll => "the same with the databases",
            Self::Rest => "memory at rest, own processes",
            Self::Crowd => "500 runs of 2 s at once, until the last has ended",
            Self::CrowdMemory => "their memory at its peak",
            Self::Start => "start-up: from nothing to the end of the first run",
            Self::First => "request to first event of the run, p50",
            Self::Generator => "load generator and model, of all processors (finished runs)",
            Self::RecoveryP50 => "kill -9 of the worker to the end of a run that was open, p50",
            Self::RecoveryP99 => "the same, p99",
            Self::Interrupted => "runs open at the kills",
            Self::Lost => "of these lost: failed, or not ended within the bound",
            Self::Doubled => "runs with a call answered to its end twice",
            Self::AskedAgain => "calls broken off by the kills",
        }
    }

    fn better(self) -> Better {
        match self {
            Self::Accepted | Self::Finished => Better::More,
            Self::Generator | Self::Interrupted | Self::AskedAgain | Self::Lost | Self::Doubled => Better::Neither,
            _ => Better::Less,
        }
    }

    fn tell(self, value: f64) -> String {
        if value.is_infinite() {
            return "not within the bound".to_owned();
        }
        match self {
            Self::Accepted | Self::Finished => format!("{value:.0}"),
            Self::AcceptP99 | Self::Cpu | Self::CpuAll | Self::First => format!("{:.1} ms", value * 1e3),
            Self::Rest | Self::CrowdMemory => format!("{:.0} MB", value / 1e6),
            Self::Crowd | Self::Start | Self::RecoveryP50 | Self::RecoveryP99 => format!("{value:.2} s"),
            Self::Generator => format!("{:.0} %", value * 100.0),
            Self::Interrupted | Self::Lost | Self::Doubled | Self::AskedAgain => format!("{value:.0}"),
        }
    }
}

/// The values of all rounds.
#[derive(Default)]
pub struct Figures(BTreeMap<Row, Vec<f64>>);

impl Figures {
    pub fn put(&mut self, row: Row, value: f64) {
        self.0.entry(row).or_default().push(value);
    }

    pub fn merge(&mut self, other: Self) {
        for (row, values) in other.0 {
            self.0.entry(row).or_default().extend(values);
        }
    }

    fn median(&self, row: Row) -> Option<f64> {
        let mut values = self.0.get(&row)?.clone();
        values.sort_by(f64::total_cmp);
        Some(quantile(&values, 0.5))
    }
}

/// Of all peers, and why some have none.
#[derive(Default)]
pub struct Table {
    pub peers: BTreeMap<Peer, Figures>,
    pub failures: Vec<(Peer, String)>,
}

impl Table {
    /// Markdown. A ratio says how many times better Runmill (api and worker, else embedded) is: below 1 the peer is ahead.
    pub fn print(&self) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        let names: Vec<_> = peers.iter().map(|peer| format!("{} {}", peer.name(), peer.version())).collect();
        println!("\n| | {} |", names.join(" | "));
        println!("|---|{}", "---|".repeat(peers.len()));
        for row in Row::ALL {
            if !self.peers.values().any(|figures| figures.median(row).is_some()) {
                continue;
            }
            let cells: Vec<_> = peers.iter().map(|peer| self.cell(*peer, row)).collect();
            println!("| {} | {} |", row.title(), cells.join(" | "));
        }
        for (peer, why) in &self.failures {
            println!("\n{}: {why}", peer.name());
        }
    }

    fn cell(&self, peer: Peer, row: Row) -> String {
        let Some(value) = self.peers.get(&peer).and_then(|figures| figures.median(row)) else {
            let cannot = if row == Row::First { peer.no_events() } else { None };
            return cannot.unwrap_or("not measured").to_owned();
        };
        let own = [Peer::Runmill, Peer::Embedded].into_iter().find_map(|own| self.peers.get(&own)?.median(row));
        match (own, peer.is_ours()) {
            (Some(own), false) if value.is_finite() && row.better() != Better::Neither => {
                format!("{} ({})", row.tell(value), times(row.better(), own, value))
            }
            _ => row.tell(value),
        }
    }
}

fn times(better: Better, own: f64, theirs: f64) -> String {
    let ratio = if better == Better::More { own / theirs } else { theirs / own };
    if ratio >= 10.0 { format!("{ratio:.0}×") } else { format!("{ratio:.2}×") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(own: f64, theirs: f64, row: Row) -> Table {
        let mut table = Table::default();
        for (peer, value) in [(Peer::Runmill, own), (Peer::Agno, theirs)] {
            table.peers.entry(peer).or_default().put(row, value);
        }
        table
    }

    #[test]
    fn a_ratio_below_one_means_that_the_peer_is_ahead() {
        assert_eq!(table(100.0, 200.0, Row::Accepted).cell(Peer::Agno, Row::Accepted), "200 (0.50×)");
        assert_eq!(table(100.0, 5.0, Row::Accepted).cell(Peer::Agno, Row::Accepted), "5 (20×)");
        assert_eq!(table(0.010, 0.005, Row::Cpu).cell(Peer::Agno, Row::Cpu), "5.0 ms (0.50×)");
        assert_eq!(table(1.0, 3.0, Row::Start).cell(Peer::Agno, Row::Start), "3.00 s (3.00×)");
    }

    #[test]
    fn the_median_of_the_rounds_is_told() {
        let mut table = table(1.0, 1.0, Row::Finished);
        for value in [900.0, 7.0] {
            table.peers.entry(Peer::Agno).or_default().put(Row::Finished, value);
        }
        assert_eq!(table.cell(Peer::Agno, Row::Finished), "7 (0.14×)");
    }

    #[test]
    fn what_never_ended_has_no_ratio() {
        assert_eq!(table(7.0, f64::INFINITY, Row::RecoveryP99).cell(Peer::Agno, Row::RecoveryP99), "not within the bound");
        assert_eq!(table(7.0, 1.0, Row::Start).cell(Peer::Celery, Row::Start), "not measured");
    }
}
