//! Numbers and names of links, tables and marks.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::OutOfRange;

/// Index of a link in its network namespace; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(NonZeroU32);

impl LinkIndex {
    /// The kernel's number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for LinkIndex {
    type Error = OutOfRange;

    fn try_from(value: u32) -> Result<Self, OutOfRange> {
        NonZeroU32::new(value).map(Self).ok_or_else(|| OutOfRange::new("link index", value))
    }
}

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// IEEE 802.1Q VLAN id, 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for VlanId {
    type Error = OutOfRange;

    fn try_from(value: u32) -> Result<Self, OutOfRange> {
        match u16::try_from(value) {
            Ok(id @ 1..=4094) => Ok(Self(id)),
            _ => Err(OutOfRange::new("VLAN id", value)),
        }
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The table of an ENI is this plus its link's index.
pub const TABLE_BASE: u32 = 1000;

/// A route table of ours: never 0 nor one of the kernel's (253 to 255).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(u32);

impl TableId {
    /// The table of the ENI behind `link`: 1000 + its index.
    pub const fn of(link: LinkIndex) -> Self {
        Self(TABLE_BASE.saturating_add(link.get()))
    }

    /// The kernel's number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for TableId {
    type Error = OutOfRange;

    fn try_from(value: u32) -> Result<Self, OutOfRange> {
        match value {
            0 | 253..=255 => Err(OutOfRange::new("route table", value)),
            _ => Ok(Self(value)),
        }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The packet mark of an ENI's pods, and the mask of the only bits that are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    value: NonZeroU32,
    mask: u32,
}

impl Mark {
    /// What `eni_conf`'s `mark_mask` is when it says nothing: clear of kube-proxy (0x4000,
    /// 0x8000), AWS (0x80), Calico (0xffff0000) and Cilium (0x0f00 and the upper half).
    pub const DEFAULT_MASK: u32 = 0x7f;

    /// A mark inside `mask`, never 0.
    pub fn new(value: u32, mask: u32) -> Result<Self, OutOfRange> {
        match NonZeroU32::new(value) {
            Some(nonzero) if value & !mask == 0 => Ok(Self { value: nonzero, mask }),
            _ => Err(OutOfRange::new("mark", format!("{value:#x}/{mask:#x}"))),
        }
    }

    /// The bits that are set.
    pub const fn value(self) -> u32 {
        self.value.get()
    }

    /// The bits that are ours.
    pub const fn mask(self) -> u32 {
        self.mask
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

/// Name of a link: 1 to 15 bytes, neither `.` nor `..`, without `/`, `:` and white space
/// (`dev_valid_name`, net/core/dev.c).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = OutOfRange;

    fn from_str(name: &str) -> Result<Self, OutOfRange> {
        let fits = (1..=15).contains(&name.len()) && name != "." && name != "..";
        let clean = !name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace());
        if fits && clean {
            Ok(Self(name.to_owned()))
        } else {
            Err(OutOfRange::new("interface name", name))
        }
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The gateway of every vSwitch has this address.
    pub const GATEWAY: Self = Self([0xee, 0xff, 0xff, 0xff, 0xff, 0xff]);

    /// From the bytes on the wire.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes on the wire.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        let wrong = || OutOfRange::new("MAC address", text);
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_not_hex| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&hex.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_outside_its_range_is_no_value() {
        assert!(LinkIndex::try_from(0).is_err());
        for id in [0, 4095, 70_000] {
            assert!(VlanId::try_from(id).is_err(), "{id}");
        }
        assert_eq!(VlanId::try_from(4094).unwrap().get(), 4094);
        for table in [0, 253, 254, 255] {
            assert!(TableId::try_from(table).is_err(), "{table}");
        }
        assert_eq!(TableId::of(LinkIndex::try_from(5).unwrap()).get(), 1005);
        assert!(Mark::new(0, 0x7f).is_err());
        assert!(Mark::new(0x80, 0x7f).is_err());
        assert_eq!(Mark::new(2, 0x7f).unwrap().to_string(), "0x2/0x7f");
    }

    #[test]
    fn a_name_is_what_the_kernel_takes() {
        for name in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xx"] {
            assert!(name.parse::<IfName>().is_err(), "{name:?}");
        }
        assert_eq!("fifteen-bytes-x".parse::<IfName>().unwrap().as_str(), "fifteen-bytes-x");
    }

    #[test]
    fn a_mac_prints_as_it_parses() {
        let mac: Mac = "00:16:3E:01:02:0a".parse().unwrap();
        assert_eq!(mac.to_string(), "00:16:3e:01:02:0a");
        for text in ["", "00:16:3e:01:02", "00:16:3e:01:02:0a:0b", "0:16:3e:01:02:0a", "x"] {
            assert!(text.parse::<Mac>().is_err(), "{text:?}");
        }
    }
}
