//! Money in integer minor units, and Stripe's rules about currencies.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// A currency that Stripe settles or presents, as its lowercase ISO 4217 code.
///
/// The exponents are Stripe's, not ISO's (<https://docs.stripe.com/currencies>): ISK and UGX are sent with two decimals whose digits are 00.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// Why something about money was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not one of Stripe's currencies.
    #[error("unknown currency: expected a three-letter ISO 4217 code that Stripe supports, such as usd")]
    UnknownCurrency,
    /// One of Stripe's currencies, in capitals where only lowercase is taken.
    #[error("currency codes are lowercase: write {0}")]
    NotLowercase(Currency),
    /// Two currencies met in one sum.
    #[error("currencies differ: {0} and {1}")]
    CurrencyMismatch(Currency, Currency),
    /// The result does not fit.
    #[error("amount out of range: beyond what a 64-bit integer of minor units holds")]
    Overflow,
    /// The currency's last digits are fixed where we send to Stripe.
    #[error("{minor} {currency} cannot be sent to Stripe: it must be divisible by {divisor}")]
    NotSendable {
        /// The amount.
        minor: i64,
        /// Its currency.
        currency: Currency,
        /// What it must be divisible by.
        divisor: i64,
    },
}

/// Every code that Stripe lists for charges (<https://docs.stripe.com/currencies#presentment-currencies>), sorted.
const CODES: &str = "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd btn bwp byn bzd cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel ghs gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std svc szl thb tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw";

impl Currency {
    /// A code as our own interfaces take it: in lowercase only, so that there is one spelling of each question. What others
    /// send is read by [`FromStr`].
    ///
    /// # Errors
    /// [`MoneyError::NotLowercase`] names the spelling that is taken.
    pub fn from_code(text: &str) -> Result<Self, MoneyError> {
        let currency: Self = text.parse()?;
        if currency.as_str() == text { Ok(currency) } else { Err(MoneyError::NotLowercase(currency)) }
    }

    /// The code, lowercase.
    pub fn as_str(&self) -> &str {
        // Only ASCII letters are ever stored.
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// How many decimals Stripe's minor unit has: 0, 2 or 3.
    pub fn exponent(self) -> u32 {
        match self.as_str() {
            "bif" | "clp" | "djf" | "gnf" | "jpy" | "kmf" | "krw" | "mga" | "pyg" | "rwf" | "vnd" | "vuv" | "xaf"
            | "xof" | "xpf" => 0,
            "bhd" | "jod" | "kwd" | "omr" | "tnd" => 3,
            _ => 2,
        }
    }

    /// What an amount must be divisible by when we ask Stripe to charge it.
    pub fn charge_divisor(self) -> i64 {
        match self.as_str() {
            "isk" | "ugx" => 100,
            "bhd" | "jod" | "kwd" | "omr" | "tnd" => 10,
            _ => 1,
        }
    }

    /// What an amount must be divisible by when we ask Stripe to pay it out or transfer it.
    pub fn payout_divisor(self) -> i64 {
        match self.as_str() {
            "huf" | "twd" => 100,
            _ => self.charge_divisor(),
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;
    /// Takes either case; Stripe's tax and FX reports use capitals.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| MoneyError::UnknownCurrency)?;
        let code = code.map(|b| b.to_ascii_lowercase());
        let known = CODES.as_bytes().chunks(4).any(|chunk| chunk.get(..3) == Some(code.as_slice()));
        if known { Ok(Self(code)) } else { Err(MoneyError::UnknownCurrency) }
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount of one currency in its minor unit; may be negative. Operations are checked and never mix currencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// `minor` minor units of `currency`.
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// In minor units.
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// Adds; refuses another currency and overflow.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Ok(Self::new(self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?, self.currency))
    }

    /// Subtracts; refuses another currency and overflow.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.same_currency(other)?;
        Ok(Self::new(self.minor.checked_sub(other.minor).ok_or(MoneyError::Overflow)?, self.currency))
    }

    /// The other sign; refuses `i64::MIN`.
    pub fn checked_neg(self) -> Result<Self, MoneyError> {
        Ok(Self::new(self.minor.checked_neg().ok_or(MoneyError::Overflow)?, self.currency))
    }

    /// Refuses an amount whose last digits Stripe would not take in a charge.
    pub fn check_chargeable(self) -> Result<Self, MoneyError> {
        self.check_divisible(self.currency.charge_divisor())
    }

    /// Refuses an amount whose last digits Stripe would not take in a payout or transfer.
    pub fn check_payable(self) -> Result<Self, MoneyError> {
        self.check_divisible(self.currency.payout_divisor())
    }

    /// Rounded towards zero to what Stripe takes in a payout or transfer; the rest stays available.
    #[must_use]
    pub fn round_to_payable(self) -> Self {
        Self::new(self.minor - self.minor % self.currency.payout_divisor(), self.currency)
    }

    fn check_divisible(self, divisor: i64) -> Result<Self, MoneyError> {
        if self.minor % divisor == 0 {
            Ok(self)
        } else {
            Err(MoneyError::NotSendable { minor: self.minor, currency: self.currency, divisor })
        }
    }

    fn same_currency(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            Ok(())
        } else {
            Err(MoneyError::CurrencyMismatch(self.currency, other.currency))
        }
    }
}

/// For people: `12.34 usd`, `500 jpy`, `1.234 kwd`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Decimal::new(self.minor, self.currency.exponent()), self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    #[test]
    fn exponents_are_stripes() {
        for (code, exponent) in [("usd", 2), ("jpy", 0), ("kwd", 3), ("isk", 2), ("ugx", 2), ("huf", 2), ("krw", 0)] {
            assert_eq!(currency(code).exponent(), exponent, "{code}");
        }
    }

    #[test]
    fn codes_are_lowercase_and_known() {
        assert_eq!(currency("USD").as_str(), "usd");
        for bad in ["", "us", "usdd", "xxx", "u d", "🦀"] {
            assert_eq!(bad.parse::<Currency>(), Err(MoneyError::UnknownCurrency), "{bad}");
            assert_eq!(Currency::from_code(bad), Err(MoneyError::UnknownCurrency), "{bad}");
        }
        assert_eq!(Currency::from_code("usd"), Ok(currency("usd")));
        for capitals in ["USD", "Usd", "usD"] {
            let refused = Currency::from_code(capitals).unwrap_err();
            assert_eq!(refused.to_string(), "currency codes are lowercase: write usd", "{capitals}");
        }
    }

    #[test]
    fn last_digits_bind_what_is_sent() {
        assert!(Money::new(1230, currency("kwd")).check_chargeable().is_ok());
        assert!(Money::new(1234, currency("kwd")).check_chargeable().is_err());
        assert!(Money::new(150, currency("isk")).check_chargeable().is_err());
        assert!(Money::new(150, currency("huf")).check_chargeable().is_ok());
        assert!(Money::new(150, currency("huf")).check_payable().is_err());
        assert_eq!(Money::new(1999, currency("huf")).round_to_payable().minor(), 1900);
    }

    #[test]
    fn sums_refuse_to_wrap_or_mix() {
        let most = Money::new(i64::MAX, currency("usd"));
        assert_eq!(most.checked_add(Money::new(1, currency("usd"))), Err(MoneyError::Overflow));
        assert_eq!(Money::new(i64::MIN, currency("usd")).checked_neg(), Err(MoneyError::Overflow));
        assert!(most.checked_sub(Money::new(1, currency("eur"))).is_err());
    }

    #[test]
    fn displays_with_the_currencys_decimals() {
        assert_eq!(Money::new(1234, currency("usd")).to_string(), "12.34 usd");
        assert_eq!(Money::new(-500, currency("jpy")).to_string(), "-500 jpy");
        assert_eq!(Money::new(1234, currency("kwd")).to_string(), "1.234 kwd");
    }
}
