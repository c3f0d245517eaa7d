//! Resource quantities, as far as they must be compared or counted in bytes.

/// Value of a quantity in thousandths, or None if it is none. `500m` is 500, `1Ki` is 1,024,000.
///
/// Suffixes as in k8s.io/apimachinery/pkg/api/resource; parts below a thousandth are cut off.
pub fn milli(text: &str) -> Option<i128> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = 9_usize.min(fraction.len());
    let value: i128 = format!("0{whole}{}", &fraction[..digits]).parse().ok()?;
    let places = i32::try_from(digits).ok()?;
    let (factor, exponent) = scale(suffix)?;
    let thousandths = value.checked_mul(factor)?;
    shift(thousandths, exponent + 3 - places)
}

/// Bytes of a memory or storage quantity.
pub fn bytes(text: &str) -> Option<i128> {
    milli(text).map(|value| value / 1000)
}

/// Factor and power of ten of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(power) = binary.iter().position(|it| *it == suffix) {
        return Some((1 << (10 * (power + 1)), 0));
    }
    let decimal =
        [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    if let Some((_, power)) = decimal.iter().find(|(it, _)| *it == suffix) {
        return Some((1, *power));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    exponent.parse().ok().filter(|power: &i32| power.abs() <= 18).map(|power| (1, power))
}

fn shift(value: i128, power_of_ten: i32) -> Option<i128> {
    let factor = 10_i128.checked_pow(power_of_ten.unsigned_abs())?;
    if power_of_ten >= 0 { value.checked_mul(factor) } else { Some(value / factor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_quantity_are_equal() {
        for (left, right) in [("1000m", "1"), ("0.5", "500m"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("2G", "2000M")] {
            assert_eq!(milli(left), milli(right), "{left} and {right}");
        }
        assert_ne!(milli("1G"), milli("1Gi"));
    }

    #[test]
    fn an_invalid_quantity_is_none() {
        for text in ["", "x", "10GB", "-1", ".", "1e99", "default"] {
            assert_eq!(milli(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_are_whole() {
        assert_eq!(bytes("2Gi"), Some(2_147_483_648));
        assert_eq!(bytes("512Mi"), Some(536_870_912));
    }
}
