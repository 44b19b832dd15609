//! The directory of pins: the maps, which carry the state of pods over restarts, and `programs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapInfo, MapType};
use aya::programs::SchedClassifier;
use ebpf_common::{self as layout, map, size};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{BpfError, PinShape, Program};

/// What a map has to be.
#[derive(Debug)]
struct Shape {
    name: &'static str,
    map_type: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

const SHAPES: [Shape; 9] = [
    shape::<u32, layout::Endpoint>(map::ENDPOINTS, MapType::Hash, size::ENDPOINTS),
    shape::<layout::AddressKey, layout::Address>(map::ADDRESSES, MapType::Hash, size::ADDRESSES),
    shape::<layout::MemberKey, layout::Member>(map::MEMBERS, MapType::Hash, size::MEMBERS),
    shape::<u32, layout::Node>(map::NODE, MapType::Array, 1),
    shape::<u32, u64>(map::DROPS, MapType::PerCpuArray, size::DROPS),
    shape::<u32, u64>(map::COUNTS, MapType::PerCpuArray, size::COUNTS),
    shape::<u32, layout::Counters>(map::COUNTERS, MapType::PerCpuHash, size::COUNTERS),
    shape::<(), ()>(map::EVENTS, MapType::RingBuf, size::EVENTS),
    shape::<u32, layout::Rate>(map::RATE, MapType::PerCpuArray, 1),
];

const fn shape<K, V>(name: &'static str, map_type: MapType, entries: u32) -> Shape {
    Shape { name, map_type, key: size_of::<K>(), value: size_of::<V>(), entries }
}

/// Makes the directory, and compares what is pinned there with what this version wants: a pinned
/// map is reused by its name alone.
pub(super) fn prepare(pins: &Path) -> Result<(), BpfError> {
    let programs = pins.join(PROGRAMS);
    let parent = nearest(&programs);
    match statfs(parent) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => {}
        Ok(_other) => return Err(BpfError::NotBpffs { path: parent.to_owned() }),
        Err(error) => return Err(failed(parent)(error.into())),
    }
    fs::create_dir_all(&programs).map_err(failed(&programs))?;
    SHAPES.iter().try_for_each(|shape| shape.check(pins))
}

/// Opens a pinned map.
pub(super) fn map(pins: &Path, name: &'static str) -> Result<MapData, BpfError> {
    MapData::from_pin(pins.join(name)).map_err(BpfError::map(name))
}

/// Pins a program in the place of the last version's; the name never points to nothing.
pub(super) fn pin(
    loaded: &mut SchedClassifier,
    program: Program,
    pins: &Path,
) -> Result<(), BpfError> {
    let path = pins.join(PROGRAMS).join(program.name());
    let fresh = pins.join(PROGRAMS).join(format!("{}_new", program.name()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&fresh)(error)),
        _ => {}
    }
    loaded.pin(&fresh).map_err(|source| BpfError::PinProgram {
        program,
        path: fresh.clone(),
        source,
    })?;
    fs::rename(&fresh, &path).map_err(failed(&path))
}

/// Of the programs' pins, inside the directory of pins.
const PROGRAMS: &str = "programs";

impl Shape {
    fn check(&self, pins: &Path) -> Result<(), BpfError> {
        let pin = pins.join(self.name);
        if !pin.try_exists().map_err(failed(&pin))? {
            return Ok(());
        }
        let found = MapInfo::from_pin(&pin).map_err(BpfError::map(self.name))?;
        let map_type = found.map_type().map_err(BpfError::map(self.name))?;
        let differs = |what, found: String, wanted: String| {
            let pin = pin.clone();
            BpfError::PinShape(Box::new(PinShape { map: self.name, pin, what, found, wanted }))
        };
        if map_type != self.map_type {
            return Err(differs("type", format!("{map_type:?}"), format!("{:?}", self.map_type)));
        }
        for (what, found, wanted) in [
            ("key size", found.key_size(), bytes(self.key)),
            ("value size", found.value_size(), bytes(self.value)),
            ("max entries", found.max_entries(), self.entries),
        ] {
            if found != wanted {
                return Err(differs(what, found.to_string(), wanted.to_string()));
            }
        }
        Ok(())
    }
}

fn bytes(size: usize) -> u32 {
    u32::try_from(size).expect("a map's entry is small")
}

/// The path, or the nearest directory above it that exists.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> BpfError {
    let path: PathBuf = path.to_owned();
    move |source| BpfError::Pins { path: path.clone(), source }
}
