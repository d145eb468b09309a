use serde_json::{Value, json};

use crate::{
    functions::{Answer, PATIENCE, Refusal, answers, refusals},
    support::{context, tools},
};

const ORDERS: &str = "{% for o in orders if o.qty > 1 %}{{ loop.index }}:{{ o.name|upper }}={{ o.price|multiply(o.qty) }};{% else %}none{% endfor %}";
const PAGE: &str = "<!doctype html><html><head><title> A &amp; B\n</title><style>p{}</style></head><body><h1>Head</h1><p>One <b>two</b>\n  three&nbsp;&lt;4&gt;<br>five</p>\
    <script>if (a < b) { x('</p>') }</script><ul><li>a</li><li>b<ol><li>c</li><li>d</li></ol></li></ul><table><tr><th>x</th><th>y</th></tr><tr><td>1<td>2</tr></table>\
    <pre>  keep\n   this</pre><!-- no --><a href='https://a.b/?c=1&amp;d=2'>link</a></body></html>";

fn markdown(markdown: &str, html: &str) -> Answer {
    ("markdown_to_html", json!({"markdown": markdown}), json!({"html": html}))
}

fn split(arguments: Value, chunks: &[&str]) -> Answer {
    ("text_split", arguments, json!({"chunks": chunks, "count": chunks.len()}))
}

pub fn known() -> Vec<Answer> {
    [plain(), marked_up()].concat()
}

fn plain() -> Vec<Answer> {
    vec![
        (
            "text_stats",
            json!({"text": "Hello there, it's me. How are you?\n\n👩‍👩‍👧 Fine, you."}),
            json!({
                "characters": 48, "characters_without_spaces": 38, "words": 9, "unique_words": 8, "sentences": 3, "lines": 3,
                "paragraphs": 2, "reading_seconds": 3,
            }),
        ),
        ("text_stats", json!({"text": ""}), json!({"characters": 0, "words": 0, "lines": 0, "average_word_length": 0})),
        (
            "regex_match",
            json!({"text": "é 12-ab, 7-C", "pattern": r"(?<n>\d+)-([a-z]+)(x)?", "flags": "i"}),
            json!({
                "matched": true, "more": false,
                "matches": [
                    {"match": "12-ab", "start": 2, "end": 7, "groups": ["12", "ab", null], "named": {"n": "12"}},
                    {"match": "7-C", "start": 9, "end": 12, "groups": ["7", "C", null], "named": {"n": "7"}},
                ],
            }),
        ),
        ("regex_match", json!({"text": "aaa", "pattern": "a", "max_matches": 2}), json!({"more": true})),
        ("regex_match", json!({"text": "abc", "pattern": "x"}), json!({"matched": false, "matches": []})),
        (
            "regex_replace",
            json!({"text": "Ann Lee, Bob Ray", "pattern": r"(\w+) (?<last>\w+)", "replacement": "${last} $1$$"}),
            json!({"text": "Lee Ann$, Ray Bob$", "replacements": 2}),
        ),
        ("regex_replace", json!({"text": "aaa", "pattern": "a", "replacement": "b", "limit": 2}), json!({"text": "bba"})),
        ("regex_replace", json!({"text": "ab", "pattern": "", "replacement": "-"}), json!({"text": "-a-b-"})),
        split(json!({"text": "a\r\nb\n\nc", "by": "lines"}), &["a", "b", "", "c"]),
        split(json!({"text": "One. Two? Three!", "by": "sentences"}), &["One.", "Two?", "Three!"]),
        split(json!({"text": "a, b c d", "by": "words", "size": 3, "overlap": 1}), &["a, b c", "c d"]),
        split(json!({"text": "héllo", "by": "chars", "size": 2}), &["hé", "ll", "o"]),
        split(json!({"text": "a\nb\n\n \nc\n", "by": "paragraphs"}), &["a\nb", "c"]),
        split(json!({"text": "a--b----c", "by": "separator", "separator": "--"}), &["a", "b", "", "c"]),
        split(json!({"text": "", "by": "words"}), &[]),
        split(json!({"text": "", "by": "sentences"}), &[]),
    ]
}

fn marked_up() -> Vec<Answer> {
    let slug = |text: &str, slug: &str| ("slugify", json!({"text": text}), json!({"slug": slug}));
    let html = |html: &str, text: &str| ("html_to_text", json!({"html": html}), json!({"text": text}));
    let rendered = |template: &str, values: Value, text: &str| {
        ("template_render", json!({"template": template, "values": values}), json!({"text": text}))
    };
    vec![
        (
            "text_diff",
            json!({"a": "one\ntwo\nthree\n", "b": "one\n2\nthree\nfour\n", "context": 1}),
            json!({
                "equal": false, "added": 2, "removed": 1, "similarity": 0.5714,
                "diff": "--- a\n+++ b\n@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n",
            }),
        ),
        ("text_diff", json!({"a": "x", "b": "x"}), json!({"equal": true, "diff": "", "similarity": 1})),
        slug("Füße & Šaty: 北京 — don't!", "fusse-saty-bei-jing-dont"),
        slug("  ", ""),
        ("slugify", json!({"text": "alpha beta gamma", "separator": "_", "max_length": 12}), json!({"slug": "alpha_beta"})),
        markdown("# Hi\n\n*a* **b** `c`\n", "<h1>Hi</h1>\n<p><em>a</em> <strong>b</strong> <code>c</code></p>\n"),
        markdown("|a|\n|-|\n|1|\n", "<table><thead><tr><th>a</th></tr></thead><tbody>\n<tr><td>1</td></tr>\n</tbody></table>\n"),
        markdown("a <b onclick=x>c</b>", "<p>a &lt;b onclick=x&gt;c&lt;/b&gt;</p>\n"),
        markdown("<script>x</script>\n", "<p>&lt;script&gt;x&lt;/script&gt;\n</p>\n"),
        markdown(
            "[a](javascript:x) [b](/c?d) ![e](data:f)",
            "<p><a href=\"#\">a</a> <a href=\"/c?d\">b</a> <img src=\"#\" alt=\"e\" /></p>\n",
        ),
        markdown("[a](JaVa&#10;Script:x) <https://b.c>", "<p><a href=\"#\">a</a> <a href=\"https://b.c\">https://b.c</a></p>\n"),
        (
            "html_to_text",
            json!({"html": PAGE, "links": true}),
            json!({
                "title": "A & B",
                "text": "# Head\n\nOne two three\u{a0}<4>\nfive\n\n- a\n- b\n  1. c\n  2. d\n\nx | y\n1 | 2\n\n  keep\n   this\n\nlink (https://a.b/?c=1&d=2)",
            }),
        ),
        html("<p>a</p><p>b", "a\n\nb"),
        html("plain  text", "plain text"),
        html("<textarea><b></textarea>x<svg><text>y</text></svg>z", "xz"),
        rendered(
            "Dear {{ name }}, {{ n + 1 }}{% if ok %}!{% endif %}",
            json!({"name": "<Ann>", "n": 2, "ok": true}),
            "Dear <Ann>, 3!",
        ),
        rendered(
            ORDERS,
            json!({"orders": [{"name": "a", "qty": 2, "price": 1.5}, {"name": "b", "qty": 1}, {"name": "c", "qty": 3, "price": 2}]}),
            "1:A=3.0;2:C=6;",
        ),
        rendered(ORDERS, json!({"orders": []}), "none"),
        rendered(
            "{{ xs|sort|join(', ') }} {{ xs|sum }} {{ xs|tojson }} {{ s|replace('a', 'b') }}",
            json!({"xs": [3, 1], "s": "aha"}),
            "1, 3 4 [3, 1] bhb",
        ),
        rendered(
            "{{ missing is defined }} {{ missing|default('none') }} {% for i in range(3) %}{{ i }}{% endfor %}",
            json!({}),
            "False none 012",
        ),
        ("template_render", json!({"template": "{{ a }}", "values": {"a": "<b>"}, "html": true}), json!({"text": "&lt;b&gt;"})),
    ]
}

#[tokio::test]
async fn known_answers() {
    answers(known()).await;
}

#[tokio::test]
async fn bad_inputs() {
    let template =
        |template: &str, code, part| ("template_render", json!({"template": template, "values": {"s": "x", "n": 3}}), code, part);
    let mut refused: Vec<Refusal> = vec![
        ("regex_match", json!({"text": "a", "pattern": "("}), "INVALID_PATTERN", "unclosed"),
        ("regex_match", json!({"text": "a", "pattern": r"(a)\1"}), "INVALID_PATTERN", "backreferences"),
        ("regex_match", json!({"text": "a", "pattern": "a", "flags": "g"}), "INVALID_ARGUMENTS", "flags"),
        ("regex_match", json!({"text": "a", "pattern": r"((\w{100}){100}){100}"}), "TOO_COMPLEX", "too large"),
        ("regex_match", json!({"text": "a", "pattern": "(".repeat(900) + &")".repeat(900)}), "INVALID_PATTERN", "nest"),
        (
            "regex_replace",
            json!({"text": "a".repeat(10_000), "pattern": "(a*)", "replacement": "$1".repeat(4000)}),
            "RESULT_TOO_LARGE",
            "bytes",
        ),
        ("text_split", json!({"text": "a", "by": "words", "size": 2, "overlap": 2}), "INVALID_ARGUMENTS", "overlap"),
        ("text_split", json!({"text": "a", "by": "separator"}), "INVALID_ARGUMENTS", "separator"),
        (
            "text_split",
            json!({"text": "a ".repeat(60_000), "by": "chars", "size": 1000, "overlap": 999}),
            "RESULT_TOO_LARGE",
            "bytes",
        ),
        ("slugify", json!({"text": "a", "separator": "/"}), "INVALID_ARGUMENTS", "separator"),
        ("markdown_to_html", json!({"markdown": 7}), "INVALID_ARGUMENTS", "markdown"),
    ];
    refused.extend([
        template("{{ s", "INVALID_TEMPLATE", "line 1"),
        template("{{ missing }}", "UNDEFINED_VALUE", "undefined"),
        template("{{ s.x.y }}", "UNDEFINED_VALUE", "undefined"),
        template("{% set x = s ~ s %}", "TEMPLATE_FAILED", "only expressions"),
        template("{% for a in [s, s] %}{% endfor %}", "TEMPLATE_FAILED", "constants"),
        template("{{ s * 1000000 }}", "TEMPLATE_FAILED", "multiply"),
        template("{% include 'x' %}", "INVALID_TEMPLATE", "include"),
        template("{% macro m() %}{% endmacro %}", "INVALID_TEMPLATE", "macro"),
        template("{% for a in range(3) recursive %}{{ loop(range(9)) }}{% endfor %}", "TEMPLATE_FAILED", "only expressions"),
        template("{{ s|format(s) }}", "TEMPLATE_FAILED", "unknown filter"),
        template("{{ ['%9d']|map('format', 1)|list }}", "TEMPLATE_FAILED", "unknown filter"),
        template("{{ debug() }}", "TEMPLATE_FAILED", "debug"),
        template("{% for i in range(100000) %}{% for j in range(100000) %}.{% endfor %}{% endfor %}", "TOO_COMPLEX", "fuel"),
        template("{{ range(100000)|join('xxxxxxxxxxxxxxxxxxxx') }}", "TEMPLATE_FAILED", "bytes"),
    ]);
    refusals(refused).await;
}

/// Each of these took minutes or gigabytes in some engine.
#[tokio::test]
async fn hostile_inputs_end_by_themselves() {
    let (tools, mut cx) = (tools(&[]), context().await);
    cx.timeout = PATIENCE;
    let deep = |open: &str, close: &str, n: usize| open.repeat(n) + &close.repeat(n);
    let calls = [
        ("regex_match", json!({"text": "a".repeat(100_000), "pattern": "(a+)+$|(a|a)*b"})),
        ("regex_match", json!({"text": "a".repeat(20_000), "pattern": ".*[^A-Z]|[A-Z]"})),
        ("regex_replace", json!({"text": "a".repeat(100_000), "pattern": "(a?){50}b", "replacement": "x"})),
        ("text_diff", json!({"a": "a\nb\n".repeat(20_000), "b": "b\nc\na\n".repeat(15_000)})),
        ("markdown_to_html", json!({"markdown": deep("> ", "", 100_000)})),
        ("markdown_to_html", json!({"markdown": deep("[", "](a)", 20_000)})),
        ("markdown_to_html", json!({"markdown": "*a_ ".repeat(50_000)})),
        ("html_to_text", json!({"html": deep("<div>", "</div>", 40_000)})),
        ("html_to_text", json!({"html": "<ul><li>".repeat(40_000)})),
        ("html_to_text", json!({"html": "<br><div>".repeat(50_000)})),
        ("html_to_text", json!({"html": format!("<a {}>", (0..60_000).map(|i| format!("a{i} ")).collect::<String>())})),
        ("text_stats", json!({"text": "a\u{301}".repeat(150_000)})),
        ("text_split", json!({"text": "\u{1f468}\u{200d}".repeat(60_000), "by": "chars"})),
        ("slugify", json!({"text": "北".repeat(10_000), "max_length": 500})),
    ];
    for (name, arguments) in calls {
        let told: String = arguments.to_string().chars().take(60).collect();
        let begun = std::time::Instant::now();
        let result = tools.call(name, &cx, arguments).await;
        assert!(
            result.as_ref().map_or_else(|e| e.code != "TIMEOUT" && e.code != "TOOL_FAILED", |_| true),
            "{name} {told}: {result:?}"
        );
        assert!(begun.elapsed() < PATIENCE / 2, "{name} {told} took {:?}", begun.elapsed());
    }
}
