//! Whisper's languages. whisper.cpp gives its own codes, hosted services give English names.

/// A BCP 47 tag of a whisper code (`zh`) or an English name (`Chinese`); `und` for what is neither.
pub fn tag(language: &str) -> String {
    let language = language.trim().to_ascii_lowercase();
    let code = NAMES.iter().find(|(_, name)| *name == language).map_or(language.as_str(), |(code, _)| code);
    match code {
        // Whisper writes simplified characters for it, and `jw` is its own for Javanese.
        "zh" => "zh-CN".to_owned(),
        "jw" => "jv".to_owned(),
        code if (2..=3).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_lowercase()) => code.to_owned(),
        _ => "und".to_owned(),
    }
}

#[rustfmt::skip]
const NAMES: [(&str, &str); 105] = [
    ("en", "english"), ("zh", "chinese"), ("de", "german"), ("es", "spanish"), ("ru", "russian"), ("ko", "korean"),
    ("fr", "french"), ("ja", "japanese"), ("pt", "portuguese"), ("tr", "turkish"), ("pl", "polish"), ("ca", "catalan"),
    ("nl", "dutch"), ("ar", "arabic"), ("sv", "swedish"), ("it", "italian"), ("id", "indonesian"), ("hi", "hindi"),
    ("fi", "finnish"), ("vi", "vietnamese"), ("he", "hebrew"), ("uk", "ukrainian"), ("el", "greek"), ("ms", "malay"),
    ("cs", "czech"), ("ro", "romanian"), ("da", "danish"), ("hu", "hungarian"), ("ta", "tamil"), ("no", "norwegian"),
    ("th", "thai"), ("ur", "urdu"), ("hr", "croatian"), ("bg", "bulgarian"), ("lt", "lithuanian"), ("la", "latin"),
    ("mi", "maori"), ("ml", "malayalam"), ("cy", "welsh"), ("sk", "slovak"), ("te", "telugu"), ("fa", "persian"),
    ("lv", "latvian"), ("bn", "bengali"), ("sr", "serbian"), ("az", "azerbaijani"), ("sl", "slovenian"), ("kn", "kannada"),
    ("et", "estonian"), ("mk", "macedonian"), ("br", "breton"), ("eu", "basque"), ("is", "icelandic"), ("hy", "armenian"),
    ("ne", "nepali"), ("mn", "mongolian"), ("bs", "bosnian"), ("kk", "kazakh"), ("sq", "albanian"), ("sw", "swahili"),
    ("gl", "galician"), ("mr", "marathi"), ("pa", "punjabi"), ("si", "sinhala"), ("km", "khmer"), ("sn", "shona"),
    ("yo", "yoruba"), ("so", "somali"), ("af", "afrikaans"), ("oc", "occitan"), ("ka", "georgian"), ("be", "belarusian"),
    ("tg", "tajik"), ("sd", "sindhi"), ("gu", "gujarati"), ("am", "amharic"), ("yi", "yiddish"), ("lo", "lao"),
    ("uz", "uzbek"), ("fo", "faroese"), ("ht", "haitian creole"), ("ps", "pashto"), ("tk", "turkmen"), ("nn", "nynorsk"),
    ("mt", "maltese"), ("sa", "sanskrit"), ("lb", "luxembourgish"), ("my", "myanmar"), ("bo", "tibetan"), ("tl", "tagalog"),
    ("mg", "malagasy"), ("as", "assamese"), ("tt", "tatar"), ("haw", "hawaiian"), ("ln", "lingala"), ("ha", "hausa"),
    ("ba", "bashkir"), ("jw", "javanese"), ("su", "sundanese"), ("yue", "cantonese"), ("zh", "mandarin"), ("es", "castilian"),
    ("my", "burmese"), ("nl", "flemish"), ("ro", "moldovan"),
];

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn tags() {
        let cases = [("zh", "zh-CN"), ("chinese", "zh-CN"), ("en", "en"), ("English", "en"), ("jw", "jv"), ("yue", "yue")];
        for (language, expected) in cases {
            assert_eq!(tag(language), expected);
        }
        assert_eq!((tag(""), tag("klingon language")), ("und".to_owned(), "und".to_owned()));
    }
}
