//! Regular expressions for the whole numbers of a range: what a schema needs where a number has a unit.

/// A regular expression for numbers with a unit that come to `from` to `to`.
pub(super) fn with_unit(from: u64, to: u64, units: &[(&str, u64)]) -> String {
    let alternatives: Vec<String> = units
        .iter()
        .filter_map(|(unit, factor)| {
            let numbers = between(from.div_ceil(*factor), to / factor)?;
            Some(format!("({numbers}){unit}"))
        })
        .collect();
    // The parser takes leading zeros.
    format!("^0*({})$", alternatives.join("|"))
}

/// A regular expression for the numbers `from` to `to` without leading zeros; `None` if there are none.
fn between(from: u64, to: u64) -> Option<String> {
    if from > to {
        return None;
    }
    // Cut so that in each piece all digits behind the first different one run from 0 to 9.
    let units = || (1..).map_while(|power| 10_u64.checked_pow(power));
    let is_cut = |unit: &u64| !from.is_multiple_of(*unit) || from < *unit;
    let nines = units()
        .filter(is_cut)
        .map(|unit| from / unit * unit + (unit - 1));
    let zeros = units().filter_map(|unit| ((to + 1) / unit * unit).checked_sub(1));
    let mut ends: Vec<u64> = nines.take_while(|end| *end < to).collect();
    ends.extend(zeros.take_while(|end| *end >= from));
    ends.push(to);
    ends.sort_unstable();
    ends.dedup();
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    for last in ends {
        let first = pieces.last().map_or(from, |(_, last)| last + 1);
        match pieces.last_mut() {
            // All numbers of so many digits, and then all of one more.
            Some(piece) if is_round(piece.0) && is_round(first) && is_round(last + 1) => {
                piece.1 = last;
            }
            _ => pieces.push((first, last)),
        }
    }
    let pieces: Vec<String> = pieces.into_iter().map(pattern).collect();
    Some(pieces.join("|"))
}

/// Whether this is 1, 10, 100 and so on.
fn is_round(number: u64) -> bool {
    number > 0 && 10_u64.pow(number.ilog10()) == number
}

/// The numbers of a piece: with as many digits, or all from one number of digits to another.
fn pattern((first, last): (u64, u64)) -> String {
    let [first, last] = [first, last].map(|number| number.to_string());
    if first.len() != last.len() {
        return format!("[1-9][0-9]{{{},{}}}", first.len() - 1, last.len() - 1);
    }
    let (mut pattern, mut any) = (String::new(), 0);
    for digits in first.chars().zip(last.chars()) {
        match digits {
            ('0', '9') => any += 1,
            (first, last) if first == last => pattern.push(first),
            (first, last) => pattern.push_str(&format!("[{first}-{last}]")),
        }
    }
    match any {
        0 => pattern,
        1 => pattern + "[0-9]",
        any => format!("{pattern}[0-9]{{{any}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_pieces_that_a_pattern_can_tell() {
        for (from, to, expected) in [
            (0, 0, Some("0")),
            (5, 4, None),
            (0, 9, Some("[0-9]")),
            (7, 7, Some("7")),
            (1, 1000, Some("[1-9][0-9]{0,2}|1000")),
            (
                100,
                86_400,
                Some("[1-9][0-9]{2,3}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2}|86400"),
            ),
            (0, 24, Some("[0-9]|1[0-9]|2[0-4]")),
            (95, 105, Some("9[5-9]|10[0-5]")),
        ] {
            assert_eq!(between(from, to).as_deref(), expected, "{from} to {to}");
        }
    }
}
