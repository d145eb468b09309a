//! Ranking texts by the words that they share with a query: Okapi BM25. Text in scripts without spaces counts by pairs of
//! characters, so that it needs no dictionary.
use std::collections::HashMap;

/// How soon a repeated word stops to count, and how much a long text is held against: the usual values.
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// The words of a text in lower case; of Chinese, Japanese and Korean runs the pairs of neighbouring characters.
pub fn tokens(text: &str) -> Vec<String> {
    let (mut all, mut word, mut run) = (Vec::new(), String::new(), Vec::new());
    for c in text.chars().flat_map(char::to_lowercase) {
        if is_cjk(c) {
            close_word(&mut all, &mut word);
            run.push(c);
        } else {
            close_run(&mut all, &mut run);
            if c.is_alphanumeric() {
                word.push(c);
            } else {
                close_word(&mut all, &mut word);
            }
        }
    }
    close_word(&mut all, &mut word);
    close_run(&mut all, &mut run);
    all
}

fn close_word(all: &mut Vec<String>, word: &mut String) {
    if !word.is_empty() {
        all.push(std::mem::take(word));
    }
}

fn close_run(all: &mut Vec<String>, run: &mut Vec<char>) {
    match run.as_slice() {
        [] => {}
        [one] => all.push(one.to_string()),
        more => all.extend(more.windows(2).map(|pair| pair.iter().collect())),
    }
    run.clear();
}

/// Ideographs, kana and hangul.
pub fn is_cjk(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// The places of those texts that share a word with the query, best first; of equals the earlier goes first.
pub fn rank<'a>(query: &str, texts: impl IntoIterator<Item = &'a str>) -> Vec<(usize, f64)> {
    let mut wanted = tokens(query);
    wanted.sort_unstable();
    wanted.dedup();
    let texts: Vec<Vec<String>> = texts.into_iter().map(tokens).collect();
    let mean = (texts.iter().map(Vec::len).sum::<usize>() as f64 / texts.len().max(1) as f64).max(1.0);
    let counts: Vec<_> = texts.iter().map(|text| counts(&wanted, text)).collect();
    let rarity: Vec<_> = (0..wanted.len())
        .map(|word| {
            let having = counts.iter().filter(|c| c.contains_key(&word)).count() as f64;
            (1.0 + (texts.len() as f64 - having + 0.5) / (having + 0.5)).ln()
        })
        .collect();
    let score = |at: usize| -> f64 {
        let length = B.mul_add(texts[at].len() as f64 / mean, 1.0 - B);
        counts[at].iter().map(|(word, n)| rarity[*word] * n * (K1 + 1.0) / K1.mul_add(length, *n)).sum()
    };
    let mut ranked: Vec<_> = (0..texts.len()).map(|at| (at, score(at))).filter(|(_, score)| *score > 0.0).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

/// How often the text has each of the wanted words.
fn counts(wanted: &[String], text: &[String]) -> HashMap<usize, f64> {
    let mut counts = HashMap::new();
    for at in text.iter().filter_map(|token| wanted.binary_search(token).ok()) {
        *counts.entry(at).or_insert(0.0) += 1.0;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(query: &str, texts: &[&str]) -> Vec<usize> {
        rank(query, texts.iter().copied()).into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn words_and_pairs_of_characters() {
        assert_eq!(tokens("It's 3 o'clock: Grüß Gott!"), ["it", "s", "3", "o", "clock", "grüß", "gott"]);
        assert_eq!(tokens("我喜欢Rust语言 猫"), ["我喜", "喜欢", "rust", "语言", "猫"]);
        assert!(tokens(" –!").is_empty());
    }

    #[test]
    fn rare_words_and_short_texts_count_more() {
        let texts = ["the user likes tea", "the user likes coffee with milk", "the user has a cat named Momo"];
        assert_eq!(order("what is the cat called?", &texts)[0], 2);
        assert_eq!(order("coffee", &texts), [1]);
        assert_eq!(order("likes", &texts), [0, 1], "the shorter one first");
        assert!(order("zebra", &texts).is_empty() && order("", &texts).is_empty() && order("x", &[]).is_empty());
    }

    #[test]
    fn chinese_is_found_by_its_pairs() {
        assert_eq!(order("他喜欢什么音乐", &["用户住在上海", "用户喜欢爵士音乐", "用户有一只猫"])[0], 1);
    }

    #[test]
    fn the_score_is_the_textbooks() {
        // Two texts of two words; "b" is in one: idf = ln(1 + (2 - 1 + 0.5) / 1.5) = ln 2, and the length is the mean: tf part is 1.
        let ranked = rank("b", ["a b", "a c"]);
        assert!(ranked.len() == 1 && (ranked[0].1 - 2_f64.ln()).abs() < 1e-12, "{ranked:?}");
    }
}
