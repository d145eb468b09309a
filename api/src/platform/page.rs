//! Lists: `{items, total, page, page_size}`.
use poem_openapi::{
    Object,
    types::{ParseFromJSON, ToJSON, Type},
};
use runmill_shared::{Error, Result};

const DEFAULT_SIZE: u64 = 20;
const MAX_SIZE: u64 = 100;

#[derive(Object)]
pub struct Page<T: Type + ParseFromJSON + ToJSON> {
    pub items: Vec<T>,
    pub total: u64,
    pub page: u64,
    pub page_size: u64,
}

/// Which page: `page` counts from 1, `page_size` is 20 and at most 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    page: u64,
    size: u64,
}

impl Paging {
    pub fn new(page: Option<u64>, page_size: Option<u64>) -> Result<Self> {
        let paging = Self { page: page.unwrap_or(1), size: page_size.unwrap_or(DEFAULT_SIZE) };
        let mut bad = Vec::new();
        if paging.page == 0 {
            bad.extend(Error::invalid("page", "at least 1").fields);
        }
        if !(1..=MAX_SIZE).contains(&paging.size) {
            bad.extend(Error::invalid("page_size", format!("1 to {MAX_SIZE}")).fields);
        }
        if bad.is_empty() { Ok(paging) } else { Err(Error::invalid_fields(bad)) }
    }

    /// For lists that are short by nature and read whole.
    pub fn cut<T: Type + ParseFromJSON + ToJSON>(self, all: Vec<T>) -> Page<T> {
        let total = all.len() as u64;
        let skip = usize::try_from((self.page - 1).saturating_mul(self.size)).unwrap_or(usize::MAX);
        let items = all.into_iter().skip(skip).take(usize::try_from(self.size).unwrap_or(usize::MAX)).collect();
        Page { items, total, page: self.page, page_size: self.size }
    }
}
