//! How the client reached us: what URLs that we give out begin with.
use poem::{FromRequest, Request, RequestBody, http::header};
use runmill_shared::{App, Error};

use super::error::refuse;

/// `listen.public_url`, else the scheme and the Host header of the request; no slash at its end.
pub struct BaseUrl(pub String);

impl<'a> FromRequest<'a> for BaseUrl {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let app = request.data::<App>().ok_or_else(|| refuse(Error::internal("no App in the request's data")))?;
        let public = app.config.listen.public_url.trim_end_matches('/');
        if !public.is_empty() {
            return Ok(Self(public.to_owned()));
        }
        let host = request.header(header::HOST).or_else(|| request.original_uri().authority().map(|a| a.as_str()));
        let host = host.map_or_else(|| app.config.listen.platform.to_string(), str::to_owned);
        Ok(Self(format!("{}://{host}", request.scheme())))
    }
}
