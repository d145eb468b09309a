//! E-mail by SMTP. A mail's Message-ID follows from its delivery, so that a repeated one can be told.
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use runmill_shared::{Error, Result, config::Notifications, services::notifications::Parcel};

use crate::engine::Failure;

/// A cheap clone.
#[derive(Clone)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Mailer {
    /// `None` when no server is named.
    pub fn open(settings: &Notifications) -> Result<Option<Self>> {
        if settings.smtp_url.is_empty() {
            return Ok(None);
        }
        // The URL holds a password: its error is not shown.
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(settings.smtp_url.expose());
        let transport = transport.map_err(|_| Error::invalid("notifications.smtp_url", "no smtp:// or smtps:// URL"))?;
        let from =
            settings.from.parse().map_err(|_| Error::invalid("notifications.from", "no sender: Name <name@example.com>"))?;
        Ok(Some(Self { transport: transport.timeout(Some(settings.timeout)).build(), from }))
    }

    pub async fn send(&self, parcel: &Parcel) -> Result<u16, Failure> {
        let mail = self.mail(parcel).map_err(|e| Failure::run("MAIL_INVALID", e, false))?;
        match self.transport.send(mail).await {
            Ok(response) => Ok(response.code().into()),
            Err(e) if e.is_permanent() || e.is_client() => Err(Failure::run("MAIL_REFUSED", e.to_string(), false)),
            Err(e) => Err(Failure::run("MAIL_FAILED", e.to_string(), true)),
        }
    }

    fn mail(&self, parcel: &Parcel) -> Result<Message, String> {
        let (told, channel) = (&parcel.notification, &parcel.channel);
        let to = channel.target.parse().map_err(|_| "the channel's target is no address".to_owned())?;
        // One line, whatever is in it: a header ends where the next one begins.
        let subject: String = told.title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let (about, id) = (&told.subject["type"], &told.subject["id"]);
        let about = format!("{} {}", about.as_str().unwrap_or_default(), id.as_str().unwrap_or_default());
        let text = format!("{}\n\n-- \n{}: {}\n", told.body, told.kind.as_str(), about.trim());
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .message_id(Some(format!("<{}.{}@{}>", told.id, channel.id, self.from.email.domain())))
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use runmill_shared::{
        clock::Timestamp,
        config::Config,
        domain::{
            new_id,
            notification::{ChannelKind, Notification, NotificationKind},
        },
        store::notification_channels::ChannelRow,
    };
    use serde_json::json;

    use super::*;

    fn mailer() -> Mailer {
        let mut settings = Config::defaults().unwrap().notifications;
        settings.smtp_url = runmill_shared::config::Secret::new("smtp://127.0.0.1:25");
        Mailer::open(&settings).unwrap().unwrap()
    }

    fn parcel(title: &str, body: &str) -> Parcel {
        let (owner, at) = ("ann".to_owned(), Timestamp(0));
        let (id, subject) = (new_id(), json!({ "type": "goal", "id": "7" }));
        let (title, body, kind) = (title.to_owned(), body.to_owned(), NotificationKind::Message);
        let notification = Notification { id, owner: owner.clone(), kind, title, body, subject, read_at: None, created_at: at };
        let channel = ChannelRow {
            id: new_id(),
            owner,
            name: "mail".into(),
            kind: ChannelKind::Email,
            target: "ann@example.org".into(),
            sealed_secret: None,
            kinds: None,
            enabled: true,
            version: 1,
            created_at: at,
            updated_at: at,
        };
        Parcel { notification, channel, secret: None }
    }

    #[tokio::test]
    async fn a_title_adds_no_header_and_a_body_ends_nothing() {
        let parcel = parcel("hi\r\nBcc: eve@example.org\r\n\r\nhello ä", "one\r\n.\r\nRSET\nBcc: eve@example.org");
        let mail = mailer().mail(&parcel).unwrap();
        assert_eq!(mail.envelope().to().iter().map(ToString::to_string).collect::<Vec<_>>(), ["ann@example.org"]);
        let text = String::from_utf8(mail.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<_> = head.lines().filter(|l| !l.starts_with(' ')).map(|l| l.split_once(':').unwrap().0).collect();
        assert!(names.contains(&"Message-ID") && names.contains(&"Subject"), "{names:?}");
        assert!(!names.contains(&"Bcc"), "{head}");
        let id = format!("<{}.{}@localhost>", parcel.notification.id, parcel.channel.id);
        assert!(head.contains(&id), "{head}");
    }

    #[test]
    fn settings_that_name_no_server_are_refused() {
        let mut settings = Config::defaults().unwrap().notifications;
        assert!(Mailer::open(&settings).unwrap().is_none());
        settings.smtp_url = runmill_shared::config::Secret::new("http://user:secret@x");
        let refused = Mailer::open(&settings).err().unwrap();
        assert!(refused.fields[0].field == "notifications.smtp_url" && !refused.to_string().contains("secret"), "{refused}");
    }
}
