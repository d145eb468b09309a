//! `/auth`: accounts, sign-in, and the API keys of machines.
use chrono::{DateTime, Utc};
use poem::{Request, web::Data};
use poem_openapi::{Enum, Object, OpenApi, param::Path, payload::Json};
use runmill_shared::{
    App,
    domain::caller::Role,
    services::accounts::{self, ApiKey, Profile, Registration},
};
use uuid::Uuid;

use super::{
    Reply,
    page::{Page, Paging},
};
use crate::http::{
    auth::{Auth, address},
    body::{Body, FormBody},
    reply::{Created, NoContent},
};

#[derive(Object)]
struct RegisterBody {
    /// compared without regard to case
    #[oai(validator(max_length = 254, pattern = r"^\s*[^\s@]+@[^\s@]+\s*$"))]
    email: String,
    #[oai(validator(min_length = 8, max_length = 256))]
    password: String,
    /// signs in too, without regard to case
    #[oai(validator(min_length = 1, max_length = 64, pattern = r"^[^@]*$"))]
    nickname: String,
}

#[derive(Object)]
struct LoginForm {
    /// email or nickname
    username: String,
    password: String,
}

#[derive(Object)]
struct TokenBody {
    access_token: String,
    /// `bearer`
    token_type: String,
    /// seconds
    expires_in: u64,
}

#[derive(Enum)]
#[oai(rename_all = "lowercase")]
enum RoleName {
    Admin,
    User,
}

#[derive(Object)]
struct UserBody {
    id: Uuid,
    email: String,
    nickname: String,
    role: RoleName,
    created_at: DateTime<Utc>,
}

impl From<Profile> for UserBody {
    fn from(p: Profile) -> Self {
        let role = if p.role == Role::Admin { RoleName::Admin } else { RoleName::User };
        Self { id: p.id, email: p.email, nickname: p.nickname, role, created_at: p.created_at.utc() }
    }
}

#[derive(Object)]
struct NewApiKey {
    /// what you call it
    #[oai(validator(min_length = 1, max_length = 64))]
    name: String,
}

#[derive(Object)]
struct ApiKeyBody {
    id: Uuid,
    name: String,
    created_at: DateTime<Utc>,
    /// to the minute
    last_used_at: Option<DateTime<Utc>>,
    /// the key itself: in the answer that creates it, and never again
    #[oai(skip_serializing_if_is_none)]
    key: Option<String>,
}

impl ApiKeyBody {
    fn new(kept: ApiKey, key: Option<String>) -> Self {
        let last_used_at = kept.last_used_at.map(|t| t.utc());
        Self { id: kept.id, name: kept.name, created_at: kept.created_at.utc(), last_used_at, key }
    }
}

pub struct AuthApi;

#[OpenApi(prefix_path = "/api/v1/auth")]
impl AuthApi {
    /// Makes an account. The first one is the administrator's.
    #[oai(path = "/register", method = "post", operation_id = "register")]
    async fn register(&self, app: Data<&App>, body: Body<RegisterBody>) -> Reply<Created<UserBody>> {
        let RegisterBody { email, password, nickname } = body.0;
        let profile = accounts::register(&app, Registration { email, password, nickname }).await?;
        Ok(Created::New(Json(profile.into())))
    }

    /// Signs in with email or nickname.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(&self, app: Data<&App>, request: &Request, form: FormBody<LoginForm>) -> Reply<Json<TokenBody>> {
        let LoginForm { username, password } = form.0;
        let issued = accounts::login(&app, &username, password, address(request)).await?;
        Ok(Json(TokenBody { access_token: issued.token, token_type: "bearer".into(), expires_in: issued.expires_in }))
    }

    /// The caller's own account.
    #[oai(path = "/me", method = "get", operation_id = "me")]
    async fn me(&self, app: Data<&App>, caller: Auth) -> Reply<Json<UserBody>> {
        Ok(Json(accounts::me(&app, &caller.0).await?.into()))
    }

    /// A key for a machine. It does what its owner may; the answer shows it this once.
    #[oai(path = "/api-keys", method = "post", operation_id = "createApiKey")]
    async fn create_key(&self, app: Data<&App>, caller: Auth, body: Body<NewApiKey>) -> Reply<Created<ApiKeyBody>> {
        let (key, kept) = accounts::create_key(&app, &caller.0, &body.0.name).await?;
        Ok(Created::New(Json(ApiKeyBody::new(kept, Some(key)))))
    }

    /// The caller's keys that are in force.
    #[oai(path = "/api-keys", method = "get", operation_id = "listApiKeys")]
    async fn keys(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<ApiKeyBody>>> {
        let keys = accounts::keys(&app, &caller.0).await?;
        Ok(Json(paging.cut(keys.into_iter().map(|key| ApiKeyBody::new(key, None)).collect())))
    }

    /// Revokes a key at once.
    #[oai(path = "/api-keys/:id", method = "delete", operation_id = "revokeApiKey")]
    async fn revoke_key(&self, app: Data<&App>, caller: Auth, id: Path<Uuid>) -> Reply<NoContent> {
        accounts::revoke_key(&app, &caller.0, id.0).await?;
        Ok(NoContent::Done)
    }
}
