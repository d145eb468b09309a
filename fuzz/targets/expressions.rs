//! What users write into settings of theirs: conditions in CEL, and templates. The first line is the expression, the rest its data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runmill_fuzz::line;
use runmill_shared::domain::{
    condition::Condition,
    tool::template::{Place, Scope, Template},
};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (expression, data) = line(text);
    let data: Value = serde_json::from_str(data).unwrap_or_else(|_| data.into());
    if let Ok(condition) = Condition::parse(expression, &["output", "x"]) {
        let holds = || condition.holds(vec![("output", data.clone()), ("x", Value::from(1))]);
        assert_eq!(holds(), holds(), "{expression}");
    }
    if let Ok(template) = Template::parse(expression) {
        let scope = Scope::new(&data);
        for place in [Place::Text, Place::Url, Place::Json, Place::Form] {
            let rendered = template.render(&scope, place);
            if template.is_literal() {
                assert!(matches!(rendered, Ok(Some(_))), "{expression}: {rendered:?}");
            }
        }
        template.value(&scope).ok();
    }
});
