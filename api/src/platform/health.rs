use poem_openapi::{Object, OpenApi, payload::Json};

pub struct HealthApi {
    pub builtin_tools: usize,
}

#[derive(Object)]
struct BuiltinTools {
    count: u64,
    ready: bool,
}

#[derive(Object)]
struct HealthBody {
    status: String,
    version: String,
    builtin_tools: BuiltinTools,
}

#[OpenApi]
impl HealthApi {
    /// That the server answers, and what it is.
    #[oai(path = "/health", method = "get", operation_id = "health")]
    async fn health(&self) -> Json<HealthBody> {
        Json(HealthBody {
            status: "ok".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            builtin_tools: BuiltinTools { count: self.builtin_tools as u64, ready: true },
        })
    }
}
