//! `/secrets`: what tools may use and nobody reads again.
use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json};
use runmill_shared::{
    App,
    config::Secret,
    services::secrets::{self, SecretName},
};

use super::{
    Reply,
    page::{Page, Paging},
};
use crate::http::{auth::Auth, body::Body, reply::NoContent};

#[derive(Object)]
struct SecretInput {
    /// never shown again
    value: String,
}

/// A secret without what is secret.
#[derive(Object)]
struct SecretBody {
    name: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<SecretName> for SecretBody {
    fn from(s: SecretName) -> Self {
        Self { name: s.name, created_at: s.created_at.utc(), updated_at: s.updated_at.utc() }
    }
}

#[derive(ApiResponse)]
enum Put {
    #[oai(status = 200)]
    Replaced(Json<SecretBody>),
    #[oai(status = 201)]
    New(Json<SecretBody>),
}

pub struct SecretsApi;

#[OpenApi(prefix_path = "/api/v1/secrets")]
impl SecretsApi {
    /// The names of the caller's secrets.
    #[oai(path = "/", method = "get", operation_id = "listSecrets")]
    async fn list(&self, app: Data<&App>, caller: Auth, paging: Paging) -> Reply<Json<Page<SecretBody>>> {
        Ok(Json(paging.of(secrets::list(&app, &caller.0, &paging.0).await?)))
    }

    /// Stores or replaces a secret.
    #[oai(path = "/:name", method = "put", operation_id = "putSecret")]
    async fn put(&self, app: Data<&App>, caller: Auth, name: Path<String>, body: Body<SecretInput>) -> Reply<Put> {
        let (is_new, stored) = secrets::put(&app, &caller.0, &name.0, &Secret::new(body.0.value)).await?;
        Ok(if is_new { Put::New(Json(stored.into())) } else { Put::Replaced(Json(stored.into())) })
    }

    /// Deletes a secret. Tools that name it fail from now on.
    #[oai(path = "/:name", method = "delete", operation_id = "deleteSecret")]
    async fn delete(&self, app: Data<&App>, caller: Auth, name: Path<String>) -> Reply<NoContent> {
        secrets::delete(&app, &caller.0, &name.0).await?;
        Ok(NoContent::Done)
    }
}
