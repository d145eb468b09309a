//! A thread's messages, a day at a time.
use std::collections::HashMap;

use chrono::{NaiveDate, NaiveTime, TimeZone};
use chrono_tz::Tz;

use crate::{
    app::App,
    clock::Timestamp,
    domain::{
        caller::{Caller, Scope},
        message::{Message, MessagePart, Source},
    },
    error::{Error, Result},
    store::{messages, threads},
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Day {
    /// The client's name of the thread; `None` when there is nothing.
    pub thread: Option<String>,
    pub day: Option<NaiveDate>,
    /// Whether there are messages from before that day.
    pub has_more: bool,
    pub messages: Vec<Message>,
}

/// Midnight of a day, in a time zone; where a clock change skips it, the first moment after.
fn start_of(day: NaiveDate, tz: Tz) -> Result<Timestamp> {
    let midnight = day.and_time(NaiveTime::MIN);
    let found = (0..=180).find_map(|m| tz.from_local_datetime(&(midnight + chrono::Duration::minutes(m))).earliest());
    found.map(|t| t.to_utc().into()).ok_or_else(|| Error::malformed("no such day"))
}

/// The newest day that has messages, or the newest before `before`; of the caller's latest thread when none is named.
pub async fn day(app: &App, caller: &Caller, thread: Option<&str>, before: Option<NaiveDate>, tz: Tz) -> Result<Day> {
    let owner = caller.can(Scope::Read)?;
    let found = match thread {
        Some(name) => Some(
            threads::by_name(&app.db, owner, name)
                .await?
                .ok_or_else(|| Error::not_found("THREAD_NOT_FOUND", "no such thread"))?,
        ),
        None => threads::latest(&app.db, owner).await?,
    };
    let Some(thread) = found else { return Ok(Day::default()) };
    let until = before.map_or(Ok(Timestamp(i64::MAX)), |day| start_of(day, tz))?;
    let Some(newest) = messages::newest(&app.db, thread.id, until).await? else { return Ok(Day::default()) };
    let day = newest.utc().with_timezone(&tz).date_naive();
    let from = start_of(day, tz)?;
    let end = day.succ_opt().map_or(Ok(Timestamp(i64::MAX)), |next| start_of(next, tz))?;
    Ok(Day {
        thread: Some(thread.external_id),
        day: Some(day),
        has_more: messages::newest(&app.db, thread.id, from).await?.is_some(),
        messages: messages::between(&app.db, thread.id, from, end).await?,
    })
}

/// For each message that carries media: where its first one can be fetched. Ours are signed; others are as the client gave them.
pub async fn media_urls(app: &App, caller: &Caller, day: &Day, base_url: &str) -> Result<HashMap<String, String>> {
    let owner = caller.can(Scope::Read)?;
    let (mut urls, mut ours) = (HashMap::new(), Vec::new());
    for message in &day.messages {
        match first_media(message) {
            Some(Source::Url { url }) => drop(urls.insert(message.id.clone(), url.clone())),
            Some(Source::Attachment { bucket, path }) => ours.push((&message.id, (bucket.as_str(), path.as_str()))),
            Some(Source::Data { .. }) | None => {}
        }
    }
    let named: Vec<_> = ours.iter().map(|(_, named)| *named).collect();
    let found = super::attachments::owned_among(app, owner, &named).await?;
    for (id, (_, path)) in ours.iter().filter(|(_, (bucket, path))| found.iter().any(|a| a.bucket == *bucket && a.path == *path))
    {
        let url = app.blobs.signed_url(path, base_url, app.clock.now(), app.config.blobs.url_lifetime).await?;
        urls.insert((*id).clone(), url);
    }
    Ok(urls)
}

fn first_media(message: &Message) -> Option<&Source> {
    message.body.parts.iter().find_map(|part| match part {
        MessagePart::Media { source, .. } => Some(source),
        MessagePart::Text { .. } => None,
    })
}
