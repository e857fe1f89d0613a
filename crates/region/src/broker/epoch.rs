//! Names of epochs. Of two epochs of one channel and origin, every region knows the later one by its name.
//!
//! An epoch is `SERIAL RANDOM .eNUMBER` without the spaces. `SERIAL` are eleven hexadecimal digits that grow from life
//! to life. `RANDOM` are five that tell apart two lives which two servers began at once. `NUMBER` counts the epochs of
//! the life. What nodes of older versions began has other names, of which none is later than another.

/// Hexadecimal digits of a life's serial, and of what stands behind it.
const SERIAL: usize = 11;
const RANDOM: usize = 5;
/// The most digits of a count: Lua tells no more of them apart.
const COUNT: usize = 15;

/// Whether `epoch` came after `than`, as far as their names tell.
pub fn is_later(epoch: &str, than: &str) -> bool {
    let (Some(epoch), Some(than)) = (Name::read(epoch), Name::read(than)) else { return false };
    epoch.serial > than.serial || epoch.life == than.life && epoch.number > than.number
}

/// Whether a life began after another, as far as their names tell.
pub(crate) fn is_later_life(life: &str, than: &str) -> bool {
    serial_of(life).zip(serial_of(than)).is_some_and(|(life, than)| life > than)
}

/// The life that an epoch is of, of whatever version.
pub fn life_of(epoch: &str) -> &str {
    epoch.split_once('.').map_or(epoch, |(life, _)| life)
}

/// Whether two epochs are of one life.
pub(crate) fn are_of_one_life(epoch: &str, other: &str) -> bool {
    life_of(epoch) == life_of(other)
}

/// A life's serial, as its name tells.
pub(crate) fn serial_of(life: &str) -> Option<u64> {
    let is_name = life.len() == SERIAL + RANDOM && life.bytes().all(|byte| byte.is_ascii_hexdigit());
    let serial = life.get(..SERIAL).filter(|_| is_name)?;
    u64::from_str_radix(serial, 16).ok()
}

struct Name<'a> {
    life: &'a str,
    serial: u64,
    number: u64,
}

impl<'a> Name<'a> {
    fn read(epoch: &'a str) -> Option<Self> {
        let (life, number) = epoch.split_once(".e")?;
        let is_count = number.len() <= COUNT && number.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { life, serial: serial_of(life)?, number: number.parse().ok().filter(|_| is_count)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_epochs_is_known_by_their_names() {
        for (earlier, later) in [
            ("019ac0f00d1aaaaa.e1", "019ac0f00d1aaaaa.e2"),
            ("019ac0f00d1aaaaa.e9", "019ac0f00d1aaaaa.e10"),
            ("019ac0f00d1fffff.e7", "019ac0f00d200000.e1"),
            ("00000000001fffff.e7", "10000000000aaaaa.e1"),
        ] {
            assert!(is_later(later, earlier) && !is_later(earlier, later), "{earlier} {later}");
            assert!(!is_later(later, later));
        }
    }

    #[test]
    fn of_names_that_tell_nothing_none_is_later() {
        let named = "019ac0f00d1aaaaa.e1";
        for other in [
            "unknown",
            "",
            "k3v9",
            "0123456789.e1",
            "019ac0f00d1bbbbb.e2",
            "019ac0f00d2aaaaa",
            "119ac0f00d2aaaaz.e1",
            "119ac0f00d2aaaaa.e+1",
            "119ac0f00d2aaaaa.e1000000000000000",
        ] {
            assert!(!is_later(other, named) && !is_later(named, other), "{other}");
        }
    }
}
