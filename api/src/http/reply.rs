//! Answers other than 200.
use poem_openapi::{ApiResponse, payload::Json, types::ToJSON};

#[derive(ApiResponse)]
pub enum Created<T: ToJSON> {
    #[oai(status = 201)]
    New(Json<T>),
}

#[derive(ApiResponse)]
pub enum NoContent {
    #[oai(status = 204)]
    Done,
}
