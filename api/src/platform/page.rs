//! Lists: `{items, total, page, page_size}`.
use std::collections::HashMap;

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions, Object,
    registry::{MetaParamIn, MetaSchemaRef, Registry},
    types::{ParseFromJSON, ToJSON, Type},
};
use runmill_shared::{
    Error, FieldError, Result,
    domain::page::{Listed, PageRequest},
};

use crate::http::error::refuse;

const DEFAULT_SIZE: i64 = 20;
const MAX_SIZE: i64 = 100;
const MAX_SEARCH: usize = 200;

#[derive(Object)]
pub struct Page<T: Type + ParseFromJSON + ToJSON> {
    pub items: Vec<T>,
    /// of the whole list
    pub total: u64,
    pub page: u64,
    pub page_size: u64,
}

/// A page of a list that grows without bound: the next one begins behind this one's last, whatever came meanwhile.
#[derive(Object)]
pub struct CursorPage<T: Type + ParseFromJSON + ToJSON> {
    pub items: Vec<T>,
    /// of the whole list; a list that is costly to count leaves it out behind a cursor
    #[oai(skip_serializing_if_is_none)]
    pub total: Option<u64>,
    pub page: u64,
    pub page_size: u64,
    /// what to ask the next page with, as `cursor`; null: there is none
    pub next_cursor: Option<String>,
}

/// What a list may be asked for. Not every list knows every one of these; what it does not know it refuses or leaves alone.
#[derive(Object)]
pub struct PageQuery {
    /// from 1
    #[oai(validator(minimum(value = "1")))]
    page: Option<u64>,
    /// 20 when left out
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    page_size: Option<u64>,
    /// a part of a name or description, without regard to case
    #[oai(validator(max_length = 200))]
    search: Option<String>,
    status: Option<String>,
    /// a field; `-` before it: descending
    sort: Option<String>,
}

/// The query of a list: `page`, `page_size`, `search`, `status` and `sort`; 422 names all that are bad.
pub struct Paging(pub PageRequest);

impl Paging {
    /// The page that a service answered, as it goes out.
    pub fn of<T, W: Type + ParseFromJSON + ToJSON + From<T>>(&self, listed: Listed<T>) -> Page<W> {
        self.page(listed.items.into_iter().map(W::from).collect(), listed.total)
    }

    /// As `of`, with where the next page begins.
    pub fn with_cursor<T, W>(&self, listed: Listed<T>, next_cursor: Option<String>) -> CursorPage<W>
    where
        W: Type + ParseFromJSON + ToJSON + From<T>,
    {
        let Page { items, total, page, page_size } = self.of::<T, W>(listed);
        CursorPage { items, total: Some(total), page, page_size, next_cursor }
    }

    /// For lists that are short by nature and read whole.
    pub fn cut<T: Type + ParseFromJSON + ToJSON>(&self, all: Vec<T>) -> Page<T> {
        let total = i64::try_from(all.len()).unwrap_or(i64::MAX);
        let skip = usize::try_from(self.0.offset()).unwrap_or(usize::MAX);
        self.page(all.into_iter().skip(skip).take(usize::try_from(self.0.size).unwrap_or(usize::MAX)).collect(), total)
    }

    fn page<T: Type + ParseFromJSON + ToJSON>(&self, items: Vec<T>, total: i64) -> Page<T> {
        Page { items, total: total.unsigned_abs(), page: self.0.number.unsigned_abs(), page_size: self.0.size.unsigned_abs() }
    }
}

fn parse(mut query: HashMap<String, String>) -> Result<PageRequest> {
    let mut bad = Vec::new();
    let mut fail = |field: &str, message: String| bad.push(FieldError { field: field.to_owned(), message });
    let mut number = |field: &str, default: i64, most: i64| match query.remove(field).map(|text| text.parse::<i64>()) {
        None => default,
        Some(Ok(n)) if (1..=most).contains(&n) => n,
        Some(_) => {
            fail(field, if most == i64::MAX { "at least 1".to_owned() } else { format!("1 to {most}") });
            default
        }
    };
    let (page, size) = (number("page", 1, i64::MAX), number("page_size", DEFAULT_SIZE, MAX_SIZE));
    let mut text = |field: &str| query.remove(field).map(|text| text.replace('\0', "")).filter(|text| !text.is_empty());
    let (search, status, sort) = (text("search"), text("status"), text("sort"));
    if search.as_ref().is_some_and(|search| search.chars().count() > MAX_SEARCH) {
        fail("search", format!("at most {MAX_SEARCH} characters"));
    }
    if bad.is_empty() { Ok(PageRequest { number: page, size, search, status, sort }) } else { Err(Error::invalid_fields(bad)) }
}

/// One parameter to OpenAPI: an object, whose fields go into the query one by one.
impl<'a> ApiExtractor<'a> for Paging {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        PageQuery::register(registry);
    }

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(PageQuery::schema_ref())
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let query = request.params().map_err(|_| refuse(Error::malformed("the query could not be read")))?;
        parse(query).map(Self).map_err(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &[(&str, &str)]) -> Result<PageRequest> {
        parse(query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn every_bad_value_is_named() {
        let long = "x".repeat(201);
        let bad = parsed(&[("page", "0"), ("page_size", "101"), ("search", &long)]).unwrap_err();
        let named: Vec<_> = bad.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(named, ["page", "page_size", "search"]);
        assert!(parsed(&[("page", "x")]).is_err() && parsed(&[("page_size", "-1")]).is_err());
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let none = PageRequest { number: 1, size: 20, search: None, status: None, sort: None };
        assert_eq!(parsed(&[]).unwrap(), none);
        assert_eq!(parsed(&[("search", ""), ("other", "1")]).unwrap(), none);
        let all =
            parsed(&[("page", "3"), ("page_size", "7"), ("search", "a b"), ("status", "draft"), ("sort", "-name")]).unwrap();
        assert_eq!((all.offset(), all.size, all.sort.as_deref()), (14, 7, Some("-name")));
        let page = Paging(PageRequest { number: 2, size: 2, ..none }).cut(vec![1_u64, 2, 3]);
        assert_eq!((page.items, page.total, page.page, page.page_size), (vec![3], 3, 2, 2));
    }
}
