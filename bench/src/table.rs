//! What the benchmarks print.

/// The first column is text and flush left, the others are figures.
pub fn print(title: &str, header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("{cell:<width$}", width = width(0)),
            _ => format!("{cell:>width$}", width = width(column)),
        });
        padded.collect::<Vec<_>>().join("   ")
    };
    println!("\n{title}\n\n{}", line(header.to_vec()));
    for row in rows {
        println!("{}", line(row.iter().map(String::as_str).collect()));
    }
}

pub fn ms(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}

pub fn rate(value: f64) -> String {
    format!("{value:.0}")
}

pub fn ratio(own: f64, base: f64) -> String {
    format!("{:.2}x", own / base)
}

pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
