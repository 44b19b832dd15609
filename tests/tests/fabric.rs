//! The VPC's wires and the nodes, in a real kernel: what arrives, what is dropped and for which
//! cause, and that nothing is left behind.

#[path = "fabric/addresses.rs"]
mod addresses;
#[path = "fabric/cleanup.rs"]
mod cleanup;
#[path = "fabric/delegated.rs"]
mod delegated;
#[path = "fabric/forged.rs"]
mod forged;
#[path = "fabric/groups.rs"]
mod groups;
#[path = "fabric/members.rs"]
mod members;
#[path = "fabric/mtu.rs"]
mod mtu;
#[path = "fabric/neighbours.rs"]
mod neighbours;
#[path = "fabric/nodes.rs"]
mod nodes;
#[path = "fabric/reach.rs"]
mod reach;
#[path = "fabric/vpc.rs"]
mod vpc;
