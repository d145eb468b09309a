//! `/feedback`: what users think of answers.
use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{ApiResponse, Object, OpenApi, param::Query, payload::Json};
use runmill_shared::{
    App,
    services::feedback::{self, Analysis, Feedback, Negative, Rating, Share},
};
use uuid::Uuid;

use super::{
    Reply,
    page::{Page, Paging},
};
use crate::http::{auth::Auth, body::Body};

const DAYS: u32 = 30;

#[derive(Object)]
struct NewFeedback {
    execution_id: Uuid,
    /// one message of the execution; the answer as a whole when left out
    message_id: Option<String>,
    /// 1: good, -1: bad
    rating: i64,
    #[oai(validator(max_length = 2000))]
    comment: Option<String>,
}

#[derive(Object)]
struct FeedbackBody {
    id: Uuid,
    execution_id: Uuid,
    agent_id: Option<String>,
    message_id: Option<String>,
    rating: i64,
    comment: String,
    created_at: DateTime<Utc>,
}

impl From<Feedback> for FeedbackBody {
    fn from(f: Feedback) -> Self {
        Self {
            id: f.id,
            execution_id: f.run_id,
            agent_id: f.agent_id,
            message_id: f.message_id,
            rating: if f.is_good { 1 } else { -1 },
            comment: f.comment,
            created_at: f.created_at.utc(),
        }
    }
}

#[derive(Object)]
struct NegativeBody {
    #[oai(flatten)]
    feedback: FeedbackBody,
    /// the last thing the user said
    question: Option<String>,
    answer: Option<String>,
}

impl From<Negative> for NegativeBody {
    fn from(n: Negative) -> Self {
        Self {
            question: n.question.map(|body| body.plain()),
            answer: n.answer.map(|body| body.plain()),
            feedback: n.feedback.into(),
        }
    }
}

#[derive(Object)]
struct AgentShare {
    agent_id: Option<String>,
    total: i64,
    positive: i64,
    negative: i64,
    /// positive / total
    positive_share: f64,
}

#[derive(Object)]
struct DayShare {
    /// `2026-03-16`, UTC
    day: String,
    total: i64,
    positive: i64,
    negative: i64,
    /// positive / total
    positive_share: f64,
}

#[derive(Object)]
struct AnalysisBody {
    total: i64,
    positive: i64,
    negative: i64,
    /// positive / total; null when there is no feedback
    positive_share: Option<f64>,
    /// the busiest first
    by_agent: Vec<AgentShare>,
    /// days that have any, oldest first
    by_day: Vec<DayShare>,
    recent_comments: Vec<FeedbackBody>,
}

fn share(good: i64, bad: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share: nobody counts feedback beyond 2^52")]
    let share = good as f64 / (good + bad).max(1) as f64;
    share
}

impl From<Share> for AgentShare {
    fn from(s: Share) -> Self {
        let positive_share = share(s.good, s.bad);
        Self { agent_id: s.of, total: s.good + s.bad, positive: s.good, negative: s.bad, positive_share }
    }
}

impl From<Share> for DayShare {
    fn from(s: Share) -> Self {
        let positive_share = share(s.good, s.bad);
        Self { day: s.of.unwrap_or_default(), total: s.good + s.bad, positive: s.good, negative: s.bad, positive_share }
    }
}

impl From<Analysis> for AnalysisBody {
    fn from(a: Analysis) -> Self {
        let (good, bad) = a.by_day.iter().fold((0, 0), |(good, bad), day| (good + day.good, bad + day.bad));
        Self {
            total: good + bad,
            positive: good,
            negative: bad,
            positive_share: (good + bad > 0).then(|| share(good, bad)),
            by_agent: a.by_agent.into_iter().map(Into::into).collect(),
            by_day: a.by_day.into_iter().map(Into::into).collect(),
            recent_comments: a.comments.into_iter().map(Into::into).collect(),
        }
    }
}

#[derive(ApiResponse)]
enum Rated {
    /// In place of what was there before.
    #[oai(status = 200)]
    Again(Json<FeedbackBody>),
    #[oai(status = 201)]
    First(Json<FeedbackBody>),
}

pub struct FeedbackApi;

#[OpenApi(prefix_path = "/api/v1/feedback")]
impl FeedbackApi {
    /// Rates an answer of one of your executions: 201, or 200 when it takes the place of an earlier rating.
    #[oai(path = "/", method = "post", operation_id = "rateAnswer")]
    async fn rate(&self, app: Data<&App>, caller: Auth, body: Body<NewFeedback>) -> Reply<Rated> {
        let NewFeedback { execution_id, message_id, rating, comment } = body.0;
        let rating = Rating { execution_id, message_id, rating, comment: comment.unwrap_or_default() };
        let (kept, first) = feedback::rate(&app, &caller.0, rating).await?;
        let kept = Json(kept.into());
        Ok(if first { Rated::First(kept) } else { Rated::Again(kept) })
    }

    /// What your feedback of the last `days` (30) comes to: by agent, by day, and the newest comments.
    #[oai(path = "/analysis", method = "get", operation_id = "analyseFeedback")]
    async fn analysis(&self, app: Data<&App>, caller: Auth, days: Query<Option<u32>>) -> Reply<Json<AnalysisBody>> {
        Ok(Json(feedback::analysis(&app, &caller.0, days.0.unwrap_or(DAYS)).await?.into()))
    }

    /// Answers that you rated as bad, with what was asked; newest first. `search` looks into comments.
    #[oai(path = "/negatives", method = "get", operation_id = "listNegativeFeedback")]
    async fn negatives(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<NegativeBody>>> {
        Ok(Json(paging.of(feedback::negatives(&app, &caller.0, &paging.0).await?)))
    }
}
