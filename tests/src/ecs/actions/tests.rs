//! What the actions do and what they refuse, against the pure state machine.

mod addresses;
mod attachment;
mod creation;
mod groups;
mod prefixes;
mod reads;
mod reference;
mod states;
mod tokens;

const ENI: &str = "NetworkInterfaceId";
const INSTANCE: &str = "InstanceId";
const TRUNK: &str = "TrunkNetworkInstanceId";
