//! Small floats, encoded and decoded by their definitions: slow, and independent of the library's kernels.

/// A float of 8 bits: how many of them are mantissa, and whether it has infinities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiny {
    mantissa_bits: u32,
    infinite: bool,
}

/// OCP E4M3: no infinities, too large becomes the largest.
pub(crate) const E4M3: Tiny = Tiny { mantissa_bits: 3, infinite: false };
/// OCP E5M2.
pub(crate) const E5M2: Tiny = Tiny { mantissa_bits: 2, infinite: true };

impl Tiny {
    /// The code of the largest finite number.
    fn largest(self) -> u8 {
        if self.infinite { 0x7b } else { 0x7e }
    }

    /// The value of a code that is no NaN and no infinity.
    pub(crate) fn decode(self, code: u8) -> f64 {
        let exponent_bits = 7 - self.mantissa_bits;
        let bias = (1 << (exponent_bits - 1)) - 1;
        let exponent = i32::from((code & 0x7f) >> self.mantissa_bits);
        let fraction = f64::from(code & ((1 << self.mantissa_bits) - 1)) / f64::from(1 << self.mantissa_bits);
        let size = match exponent {
            0 => fraction * 2f64.powi(1 - bias),
            _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
        };
        if code & 0x80 == 0 { size } else { -size }
    }

    /// The code nearest to a number; of two as near, the even one.
    pub(crate) fn encode(self, value: f64) -> u8 {
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        let size = value.abs();
        let largest = self.decode(self.largest());
        if size > largest {
            // Half a step beyond the largest is where rounding would reach the next number, if there was one.
            let step = largest - self.decode(self.largest() - 1);
            let over = self.infinite && size >= largest + step / 2.0;
            return sign | (self.largest() + u8::from(over));
        }
        // Codes without a sign are in the order of their values.
        let (mut low, mut high) = (0, self.largest());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.decode(middle) <= size { low = middle } else { high = middle }
        }
        let (below, above) = (size - self.decode(low), self.decode(high) - size);
        let up = above < below || (above == below && high.is_multiple_of(2));
        sign | if up { high } else { low }
    }
}
