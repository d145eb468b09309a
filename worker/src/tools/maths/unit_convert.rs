//! `unit_convert`: a value in another unit of the same quantity.
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::number;
use crate::tools::{
    Tool, ToolError,
    function::{Spec, function, object, text},
};

/// How many of the base unit one is: value × factor + offset.
struct Unit {
    symbol: &'static str,
    names: &'static [&'static str],
    factor: f64,
    offset: f64,
}

const fn unit(symbol: &'static str, names: &'static [&'static str], factor: f64) -> Unit {
    Unit { symbol, names, factor, offset: 0.0 }
}

const KELVIN_AT_ZERO: f64 = 273.15;
const POUND: f64 = 0.453_592_37;
const GALLON: f64 = 3.785_411_784;
const IMPERIAL_GALLON: f64 = 4.546_09;
const DAY: f64 = 86_400.0;
/// The mean of the Gregorian calendar.
const YEAR: f64 = 365.2425 * DAY;
const KI: f64 = 1024.0;

/// Each quantity with its units; the factors are exact where a definition makes them so.
const QUANTITIES: &[(&str, &[Unit])] = &[
    (
        "length",
        &[
            unit("m", &["meter", "metre"], 1.0),
            unit("nm", &["nanometer", "nanometre"], 1e-9),
            unit("um", &["µm", "μm", "micrometer", "micrometre", "micron"], 1e-6),
            unit("mm", &["millimeter", "millimetre"], 1e-3),
            unit("cm", &["centimeter", "centimetre"], 1e-2),
            unit("dm", &["decimeter", "decimetre"], 0.1),
            unit("km", &["kilometer", "kilometre"], 1e3),
            unit("in", &["inch", "inches", "\""], 0.0254),
            unit("ft", &["foot", "feet", "'"], 0.3048),
            unit("yd", &["yard"], 0.9144),
            unit("mi", &["mile"], 1609.344),
            unit("nmi", &["nautical mile"], 1852.0),
            unit("au", &["astronomical unit"], 149_597_870_700.0),
            unit("ly", &["light year", "lightyear"], 9_460_730_472_580_800.0),
        ],
    ),
    (
        "mass",
        &[
            unit("kg", &["kilogram", "kilogramme"], 1.0),
            unit("ug", &["µg", "μg", "microgram"], 1e-9),
            unit("mg", &["milligram"], 1e-6),
            unit("g", &["gram", "gramme"], 1e-3),
            unit("t", &["tonne", "metric ton"], 1e3),
            unit("oz", &["ounce"], POUND / 16.0),
            unit("lb", &["pound", "lbs"], POUND),
            unit("st", &["stone"], POUND * 14.0),
            unit("ton_us", &["short ton", "us ton"], POUND * 2000.0),
            unit("ton_uk", &["long ton", "imperial ton"], POUND * 2240.0),
        ],
    ),
    (
        "volume",
        &[
            unit("l", &["L", "liter", "litre"], 1.0),
            unit("ml", &["mL", "milliliter", "millilitre", "cm3", "cm³", "cubic centimeter", "cubic centimetre"], 1e-3),
            unit("cl", &["cL", "centiliter", "centilitre"], 1e-2),
            unit("dl", &["dL", "deciliter", "decilitre"], 0.1),
            unit("m3", &["m³", "cubic meter", "cubic metre"], 1e3),
            unit("in3", &["in³", "cubic inch", "cubic inches"], 0.016_387_064),
            unit("ft3", &["ft³", "cubic foot", "cubic feet"], 28.316_846_592),
            unit("tsp", &["teaspoon"], GALLON / 768.0),
            unit("tbsp", &["tablespoon"], GALLON / 256.0),
            unit("fl_oz", &["fl oz", "fluid ounce"], GALLON / 128.0),
            unit("cup", &["cups"], GALLON / 16.0),
            unit("pt", &["pint"], GALLON / 8.0),
            unit("qt", &["quart"], GALLON / 4.0),
            unit("gal", &["gallon", "us gallon"], GALLON),
            unit("pt_uk", &["imperial pint", "uk pint"], IMPERIAL_GALLON / 8.0),
            unit("gal_uk", &["imperial gallon", "uk gallon"], IMPERIAL_GALLON),
        ],
    ),
    (
        "area",
        &[
            unit("m2", &["m²", "square meter", "square metre"], 1.0),
            unit("mm2", &["mm²", "square millimeter", "square millimetre"], 1e-6),
            unit("cm2", &["cm²", "square centimeter", "square centimetre"], 1e-4),
            unit("km2", &["km²", "square kilometer", "square kilometre"], 1e6),
            unit("are", &["ares"], 100.0),
            unit("ha", &["hectare"], 1e4),
            unit("in2", &["in²", "square inch", "square inches"], 0.000_645_16),
            unit("ft2", &["ft²", "square foot", "square feet"], 0.092_903_04),
            unit("yd2", &["yd²", "square yard"], 0.836_127_36),
            unit("acre", &["acres"], 4_046.856_422_4),
            unit("mi2", &["mi²", "square mile"], 2_589_988.110_336),
        ],
    ),
    (
        "temperature",
        &[
            unit("K", &["kelvin"], 1.0),
            Unit { symbol: "C", names: &["°C", "celsius", "centigrade"], factor: 1.0, offset: KELVIN_AT_ZERO },
            Unit { symbol: "F", names: &["°F", "fahrenheit"], factor: 5.0 / 9.0, offset: KELVIN_AT_ZERO - 32.0 * 5.0 / 9.0 },
            unit("R", &["°R", "rankine"], 5.0 / 9.0),
        ],
    ),
    (
        "time",
        &[
            unit("s", &["sec", "second"], 1.0),
            unit("ns", &["nanosecond"], 1e-9),
            unit("us", &["µs", "μs", "microsecond"], 1e-6),
            unit("ms", &["millisecond"], 1e-3),
            unit("min", &["minute"], 60.0),
            unit("h", &["hr", "hour"], 3600.0),
            unit("d", &["day"], DAY),
            unit("wk", &["week"], 7.0 * DAY),
            unit("mo", &["month"], YEAR / 12.0),
            unit("yr", &["a", "year"], YEAR),
        ],
    ),
    (
        "speed",
        &[
            unit("m/s", &["mps", "meter per second", "metre per second"], 1.0),
            unit("km/h", &["kmh", "kph", "kilometer per hour", "kilometre per hour"], 1.0 / 3.6),
            unit("mph", &["mi/h", "mile per hour", "miles per hour"], 0.447_04),
            unit("kn", &["kt", "knot"], 1852.0 / 3600.0),
            unit("ft/s", &["fps", "foot per second", "feet per second"], 0.3048),
        ],
    ),
    (
        "data",
        &[
            unit("B", &["byte"], 1.0),
            unit("bit", &["b"], 0.125),
            unit("kbit", &["kb", "Kb", "kilobit"], 125.0),
            unit("Mbit", &["Mb", "megabit"], 125e3),
            unit("Gbit", &["Gb", "gigabit"], 125e6),
            unit("kB", &["KB", "kilobyte"], 1e3),
            unit("MB", &["megabyte"], 1e6),
            unit("GB", &["gigabyte"], 1e9),
            unit("TB", &["terabyte"], 1e12),
            unit("PB", &["petabyte"], 1e15),
            unit("KiB", &["kibibyte"], KI),
            unit("MiB", &["mebibyte"], KI * KI),
            unit("GiB", &["gibibyte"], KI * KI * KI),
            unit("TiB", &["tebibyte"], KI * KI * KI * KI),
            unit("PiB", &["pebibyte"], KI * KI * KI * KI * KI),
        ],
    ),
    (
        "pressure",
        &[
            unit("Pa", &["pascal"], 1.0),
            unit("hPa", &["hectopascal"], 100.0),
            unit("kPa", &["kilopascal"], 1e3),
            unit("MPa", &["megapascal"], 1e6),
            unit("mbar", &["millibar"], 100.0),
            unit("bar", &["bars"], 1e5),
            unit("atm", &["atmosphere"], 101_325.0),
            unit("mmHg", &["millimeter of mercury", "millimetre of mercury"], 133.322_387_415),
            unit("Torr", &["torr"], 101_325.0 / 760.0),
            unit("psi", &["pound per square inch", "pounds per square inch"], 6_894.757_293_168_36),
        ],
    ),
    (
        "energy",
        &[
            unit("J", &["joule"], 1.0),
            unit("kJ", &["kilojoule"], 1e3),
            unit("MJ", &["megajoule"], 1e6),
            unit("cal", &["calorie"], 4.184),
            unit("kcal", &["kilocalorie", "Cal"], 4184.0),
            unit("Wh", &["watt hour", "watt-hour"], 3600.0),
            unit("kWh", &["kilowatt hour", "kilowatt-hour"], 3.6e6),
            unit("eV", &["electronvolt"], 1.602_176_634e-19),
            unit("BTU", &["Btu", "british thermal unit"], 1_055.055_852_62),
            unit("ft_lb", &["ft lb", "foot pound", "foot-pound"], 1.355_817_948_331_400_4),
        ],
    ),
];

#[derive(Deserialize)]
struct Arguments {
    value: f64,
    from: String,
    to: String,
}

pub fn tool() -> Arc<dyn Tool> {
    let spec = Spec {
        name: "unit_convert",
        category: "maths",
        description: "Converts a value between units of length, mass, volume, area, temperature, time, speed, data, pressure or energy. \
                      Units are symbols (km, lb, gal, m2, F, kWh, MiB; their case matters: Mb is a megabit, MB a megabyte) or English \
                      names. Gallons, pints and cups are those of the USA unless the name says UK; a month and a year are the calendar's means.",
        parameters: object(
            json!({
                "value": {"type": "number", "description": "how many of the unit `from`"},
                "from": text(40, "unit of the value, for example km or mile"),
                "to": text(40, "unit of the result"),
            }),
            &["value", "from", "to"],
        ),
        output: object(
            json!({
                "result": {"type": "number"}, "from": {"type": "string"}, "to": {"type": "string"}, "quantity": {"type": "string"},
            }),
            &["result", "from", "to", "quantity"],
        ),
    };
    function(spec, |arguments: Arguments| convert(&arguments))
}

fn convert(arguments: &Arguments) -> Result<Value, ToolError> {
    let (quantity, from) = find(&arguments.from)?;
    let (other, to) = find(&arguments.to)?;
    if quantity != other {
        let e = format!("{} is a unit of {quantity}, {} of {other}", from.symbol, to.symbol);
        return Err(ToolError::new("INCOMPATIBLE_UNITS", e));
    }
    // Units of the same zero are not taken through it: that would cost digits.
    let result = if from.offset == to.offset {
        arguments.value * from.factor / to.factor
    } else {
        let base = arguments.value * from.factor + from.offset;
        // Sums near the zero of a scale leave a residue that is no temperature.
        (((base - to.offset) / to.factor) * 1e10).round() / 1e10
    };
    if !result.is_finite() {
        return Err(ToolError::new("OUT_OF_RANGE", "the result is no finite number"));
    }
    Ok(json!({"result": number(result), "from": from.symbol, "to": to.symbol, "quantity": quantity}))
}

/// By symbol as written, else by name or symbol in any case, also in the plural.
fn find(text: &str) -> Result<(&'static str, &'static Unit), ToolError> {
    let text = text.trim();
    let units = || QUANTITIES.iter().flat_map(|(quantity, units)| units.iter().map(move |unit| (*quantity, unit)));
    let lower = text.to_lowercase();
    let singular = lower.strip_suffix('s').unwrap_or(&lower);
    let same = |name: &str| {
        let name = name.to_lowercase();
        name == lower || (name.len() > 2 && name == singular)
    };
    let exact = units().find(|(_, unit)| unit.symbol == text || unit.names.contains(&text));
    exact.or_else(|| units().find(|(_, unit)| same(unit.symbol) || unit.names.iter().any(|name| same(name)))).ok_or_else(|| {
        let all: Vec<_> = QUANTITIES
            .iter()
            .map(|(quantity, units)| format!("{quantity}: {}", units.iter().map(|u| u.symbol).collect::<Vec<_>>().join(" ")))
            .collect();
        ToolError::new("UNKNOWN_UNIT", format!("{text:?} is no known unit; there are {}", all.join("; ")))
    })
}
