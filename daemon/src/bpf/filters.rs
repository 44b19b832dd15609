//! tc filters over netlink: what attaches ours, and who is attached.
//!
//! `RTM_NEWTFILTER` with `NLM_F_CREATE` and without `NLM_F_EXCL` creates the filter, or swaps its
//! program under RCU if there is one with the same priority and handle: one message, no gap.
//! <https://elixir.bootlin.com/linux/v6.12/source/net/sched/cls_bpf.c#L443>

use std::io;
use std::os::fd::RawFd;

use model::LinkIndex;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
    TcOption,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{AttachPoint, BpfError, Direction, Program};

/// A filter on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Where it sits.
    pub point: AttachPoint,
    /// `bpf`, `flower`, …
    pub kind: String,
    /// Name that who attached it gave it.
    pub name: Option<String>,
    /// Kernel id of its program.
    pub program_id: Option<u32>,
    /// Which of ours it is, by place and name; `None` if it is foreign.
    pub program: Option<Program>,
}

/// The filters of a link, both ways, in the order in which they run. None for a link without
/// `clsact`. Must run in the namespace of the link.
pub fn filters(link: LinkIndex) -> Result<Vec<Filter>, BpfError> {
    let failed = |source| BpfError::Filter { what: "read", link, source };
    let mut filters = Vec::new();
    for direction in Direction::ALL {
        for message in dump(link, direction).map_err(failed)? {
            filters.extend(filter(direction, &message));
        }
    }
    filters.sort_by_key(|filter| (filter.point.direction, filter.point.priority));
    Ok(filters)
}

/// Makes the link's `clsact`; one that is there is kept.
pub(super) fn clsact(link: LinkIndex) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut message = TcMessage::default();
    message.header = TcHeader {
        index: index(link),
        handle: TcHandle { major: u16::MAX, minor: 0 },
        parent: TcHandle::CLSACT,
        ..TcHeader::default()
    };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    request(RouteNetlinkMessage::NewQueueDiscipline(message))
}

/// Attaches the program behind `fd`, or swaps in place what is attached there.
pub(super) fn replace(
    link: LinkIndex,
    program: Program,
    fd: RawFd,
) -> NetlinkMessage<RouteNetlinkMessage> {
    let point = program.attach_point();
    let mut message = TcMessage::default();
    message.header = TcHeader {
        index: index(link),
        handle: TcHandle::from(point.handle),
        parent: parent(point.direction),
        info: u32::from(point.priority) << 16 | u32::from(ALL_PROTOCOLS.to_be()),
        ..TcHeader::default()
    };
    let options = vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(fd.unsigned_abs())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(program.name().to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ];
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message.attributes.push(TcAttribute::Options(options));
    request(RouteNetlinkMessage::NewTrafficFilter(message))
}

/// Sends the messages in one batch, in the namespace of the calling thread, and waits for the
/// answer to each.
pub(super) fn send(
    link: LinkIndex,
    messages: Vec<NetlinkMessage<RouteNetlinkMessage>>,
) -> Result<(), BpfError> {
    batch(messages).map_err(|source| BpfError::Filter { what: "attach", link, source })
}

/// `ETH_P_ALL`
const ALL_PROTOCOLS: u16 = 3;
/// Dumps that were interrupted by a change are repeated this often.
const DUMPS: usize = 10;

fn request(message: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    message
}

const fn parent(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Ingress => TcHandle::MIN_INGRESS,
        Direction::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

fn index(link: LinkIndex) -> i32 {
    i32::try_from(link.get()).expect("the kernel counts links in an int")
}

fn batch(messages: Vec<NetlinkMessage<RouteNetlinkMessage>>) -> io::Result<()> {
    let socket = open()?;
    let mut missing = messages.len();
    let mut buffer = Vec::new();
    for (number, mut message) in (1..).zip(messages) {
        message.header.sequence_number = number;
        message.finalize();
        let start = buffer.len();
        buffer.resize(start + message.buffer_len(), 0);
        message.serialize(&mut buffer[start..]);
    }
    socket.send(&buffer, 0)?;
    let mut first_error = Ok(());
    while missing > 0 {
        for answer in receive(&socket)? {
            if let NetlinkPayload::Error(answer) = answer.payload {
                missing = missing.saturating_sub(1);
                if answer.code.is_some() && first_error.is_ok() {
                    first_error = Err(answer.to_io());
                }
            }
        }
    }
    first_error
}

fn dump(link: LinkIndex, direction: Direction) -> io::Result<Vec<TcMessage>> {
    for _ in 0..DUMPS {
        if let Some(messages) = dump_once(link, direction)? {
            return Ok(messages);
        }
    }
    Err(io::Error::other("the filters change all the time"))
}

/// `None` if the kernel says that the dump is not consistent.
fn dump_once(link: LinkIndex, direction: Direction) -> io::Result<Option<Vec<TcMessage>>> {
    let socket = open()?;
    let mut message = TcMessage::default();
    message.header =
        TcHeader { index: index(link), parent: parent(direction), ..TcHeader::default() };
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetTrafficFilter(message));
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    socket.send(&buffer, 0)?;

    let mut found = Vec::new();
    let mut consistent = true;
    loop {
        for answer in receive(&socket)? {
            consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(consistent.then_some(found)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
                    found.push(filter);
                }
                _ => {}
            }
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn receive(socket: &Socket) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let (datagram, _sender) = socket.recv_from_full()?;
    let mut rest = datagram.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
        let length = usize::try_from(message.header.length).map_err(io::Error::other)?;
        let aligned = length.next_multiple_of(4).min(rest.len());
        if aligned == 0 {
            return Err(io::Error::other("a netlink message without length"));
        }
        rest = &rest[aligned..];
        messages.push(message);
    }
    Ok(messages)
}

/// `None` for the head of a priority, which the kernel lists as a filter without handle.
fn filter(direction: Direction, message: &TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    if handle == 0 {
        return None;
    }
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    let point = AttachPoint { direction, priority, handle };
    let mut filter =
        Filter { point, kind: String::new(), name: None, program_id: None, program: None };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
            TcAttribute::Options(options) => read_options(&mut filter, options),
            _ => {}
        }
    }
    filter.program = filter.name.as_deref().and_then(|name| Program::at(point, name));
    Some(filter)
}

fn read_options(filter: &mut Filter, options: &[TcOption]) {
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name.clone()),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program_id = Some(*id),
            _ => {}
        }
    }
}
