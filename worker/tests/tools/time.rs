use serde_json::json;

use crate::functions::{Answer, Refusal, answers, refusals};

pub fn known() -> Vec<Answer> {
    [reckoned(), read()].concat()
}

fn reckoned() -> Vec<Answer> {
    vec![
        ("now", json!({"timezone": "Asia/Kolkata"}), json!({"local": "2026-03-16T15:30:00+05:30", "weekday": "Monday"})),
        (
            "date_add",
            json!({"date": "2026-01-31", "months": 1}),
            json!({"datetime": "2026-02-28T00:00:00Z", "weekday": "Saturday"}),
        ),
        ("date_add", json!({"date": "2024-02-29", "years": 1, "days": -1}), json!({"utc": "2025-02-27T00:00:00Z"})),
        (
            "date_add",
            json!({"date": "2026-03-07T12:00", "days": 1, "timezone": "America/New_York"}),
            json!({"datetime": "2026-03-08T12:00:00-04:00", "utc": "2026-03-08T16:00:00Z"}),
        ),
        (
            "date_add",
            json!({"date": "2026-03-07T12:00", "hours": 24, "timezone": "America/New_York"}),
            json!({"datetime": "2026-03-08T13:00:00-04:00"}),
        ),
        // A calendar step into a spring gap moves on by its length.
        (
            "date_add",
            json!({"date": "2026-03-07T02:30", "days": 1, "timezone": "America/New_York"}),
            json!({"datetime": "2026-03-08T03:30:00-04:00"}),
        ),
        (
            "date_add",
            json!({"date": "2026-03-14T15:09:26+02:00", "weeks": 1}),
            json!({"datetime": "2026-03-21T15:09:26+02:00", "timezone": "+02:00"}),
        ),
        (
            "date_diff",
            json!({"from": "2024-02-29", "to": "2026-03-14"}),
            json!({
                "value": 744, "unit": "days", "seconds": 64_281_600,
                "calendar": {"years": 2, "months": 0, "days": 14, "hours": 0, "minutes": 0, "seconds": 0},
            }),
        ),
        ("date_diff", json!({"from": "2026-03-14", "to": "2024-02-29", "unit": "months"}), json!({"value": -24})),
        ("date_diff", json!({"from": "2026-01-01T00:00Z", "to": "2026-01-01T12:00Z"}), json!({"value": 0.5})),
        (
            "date_diff",
            json!({"from": "2026-03-08", "to": "2026-03-09", "unit": "hours", "timezone": "America/New_York"}),
            json!({"value": 23}),
        ),
        (
            "timezone_convert",
            json!({"datetime": "2026-07-01 09:00", "from": "Europe/Vienna", "to": "Asia/Shanghai"}),
            json!({
                "datetime": "2026-07-01T15:00:00+08:00", "utc": "2026-07-01T07:00:00Z", "offset": "+08:00", "daylight_saving": false,
                "source_clock": "unique", "weekday": "Wednesday",
            }),
        ),
        (
            "timezone_convert",
            json!({"datetime": "2026-11-01 01:30", "from": "America/New_York", "to": "UTC"}),
            json!({"utc": "2026-11-01T05:30:00Z", "source_clock": "repeated"}),
        ),
        (
            "timezone_convert",
            json!({"datetime": "2026-03-29 01:30", "from": "Europe/London", "to": "Europe/London"}),
            json!({"datetime": "2026-03-29T02:30:00+01:00", "source_clock": "skipped", "daylight_saving": true}),
        ),
    ]
}

fn read() -> Vec<Answer> {
    let read = |text: &str, utc: &str| ("parse_date", json!({"text": text}), json!({"utc": utc}));
    let pi = "2026-03-14T15:09:26Z";
    vec![
        (
            "parse_date",
            json!({"text": "2026-03-14T15:09:26.5+01:00"}),
            json!({
                "datetime": "2026-03-14T15:09:26.500+01:00", "utc": "2026-03-14T14:09:26.500Z", "weekday": "Saturday", "iso_week": "2026-W11",
                "day_of_year": 73, "epoch_seconds": 1_773_497_366, "form": "iso8601",
            }),
        ),
        read("Sat, 14 Mar 2026 15:09:26 +0000", pi),
        read("1773500966", pi),
        read("1773500966000", pi),
        read("1773500966.25", "2026-03-14T15:09:26.250Z"),
        read("2026-03-14 15:09:26", pi),
        read("14 March 2026 15:09", "2026-03-14T15:09:00Z"),
        read("March 14, 2026 at 3:09 PM", "2026-03-14T15:09:00Z"),
        read("Mar 14, 2026", "2026-03-14T00:00:00Z"),
        read("14.03.2026", "2026-03-14T00:00:00Z"),
        read("20260314", "2026-03-14T00:00:00Z"),
        read("2026-W11-6", "2026-03-14T00:00:00Z"),
        read("2026-073", "2026-03-14T00:00:00Z"),
        read("2026-03-14T15:09Z", "2026-03-14T15:09:00Z"),
        read("-86400", "1969-12-31T00:00:00Z"),
        (
            "parse_date",
            json!({"text": "03/04/2026", "format": "%d/%m/%Y"}),
            json!({"utc": "2026-04-03T00:00:00Z", "form": "format"}),
        ),
        (
            "parse_date",
            json!({"text": "14/03/26 15:09", "format": "%d/%m/%y %H:%M", "timezone": "Europe/Vienna"}),
            json!({"datetime": "2026-03-14T15:09:00+01:00"}),
        ),
        (
            "cron_next",
            json!({"cron": "30 2 * * *", "timezone": "America/New_York", "after": "2026-03-07T12:00", "count": 2}),
            json!({"times": ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"], "timezone": "America/New_York"}),
        ),
        ("cron_next", json!({"cron": "@daily", "count": 1}), json!({"times": ["2026-03-17T00:00:00Z"]})),
        ("cron_next", json!({"cron": "0 0 30 2 *"}), json!({"times": []})),
    ]
}

#[tokio::test]
async fn known_answers() {
    answers(known()).await;
}

#[tokio::test]
async fn bad_inputs() {
    let refused: Vec<Refusal> = vec![
        ("date_add", json!({"date": "soon"}), "INVALID_DATE", "soon"),
        ("date_add", json!({"date": "2026-01-01", "years": 9000}), "OUT_OF_RANGE", "9999"),
        (
            "date_add",
            json!({"date": "2026-01-01", "years": -10000, "months": -120_000, "days": -3_700_000}),
            "OUT_OF_RANGE",
            "9999",
        ),
        ("date_add", json!({"date": "2026-01-01", "days": 1e300}), "INVALID_ARGUMENTS", "days"),
        ("date_add", json!({"date": "2026-01-01", "timezone": "Mars/Olympus"}), "INVALID_ARGUMENTS", "timezone"),
        ("date_diff", json!({"from": "2026-02-30", "to": "2026-03-01"}), "INVALID_DATE", "from"),
        ("date_diff", json!({"from": "2026-02-28", "to": "x"}), "INVALID_DATE", "to"),
        ("date_diff", json!({"from": "1", "to": "2", "unit": "fortnights"}), "INVALID_ARGUMENTS", "unit"),
        ("timezone_convert", json!({"datetime": "2026-02-28", "to": "EST5"}), "INVALID_ARGUMENTS", "to"),
        ("parse_date", json!({"text": "03/04/2026"}), "INVALID_DATE", "for certain"),
        ("parse_date", json!({"text": "9223372036854775807999"}), "INVALID_DATE", "for certain"),
        ("parse_date", json!({"text": "-99999999999"}), "OUT_OF_RANGE", "1 to 9999"),
        ("parse_date", json!({"text": "0000-01-01T00:00:00Z"}), "OUT_OF_RANGE", "1 to 9999"),
        ("parse_date", json!({"text": "2026", "format": "%"}), "INVALID_DATE", "format"),
        ("parse_date", json!({"text": "2026", "format": "%Q%Q%:::::z"}), "INVALID_DATE", "format"),
        ("parse_date", json!({"text": "é".repeat(200)}), "INVALID_DATE", "é"),
        ("cron_next", json!({"cron": "61 * * * *"}), "INVALID_ARGUMENTS", "cron"),
        ("cron_next", json!({"cron": "* * *"}), "INVALID_ARGUMENTS", "five or six"),
        ("cron_next", json!({"cron": "@daily", "timezone": "here"}), "INVALID_ARGUMENTS", "timezone"),
        ("cron_next", json!({"cron": "@daily", "after": "whenever"}), "INVALID_DATE", "after"),
    ];
    refusals(refused).await;
}
