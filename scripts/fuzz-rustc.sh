#!/bin/sh
# A RUSTC_WRAPPER: what is fuzzed, and the parsers below it, tell libFuzzer where they have been; all else is built as usual.
# The flags are those of cargo-fuzz without a sanitizer: what is behind these parsers is safe Rust.
case " $* " in
  *" --crate-name build_script"* | *" --crate-type proc-macro"* | *" --crate-name seed "* | *" --crate-name libfuzzer_sys "*) exec "$@" ;;
esac
case ${CARGO_PKG_NAME:-} in
  runmill-* | cel | chrono | chrono-tz | croner | csv | html5gum | jsonschema | minijinja | multer | pulldown-cmark | quick-xml | \
    rig-core | serde-saphyr | serde_json_path | symphonia*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
      -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1
    ;;
esac
exec "$@"
