//! A blocking netlink socket: batches whose every ACK is checked, and dumps that are whole.
//!
//! The kernel answers a request while it is sent, so nothing here waits for long; and a socket
//! stays in the namespace it was opened in.

use std::io;
use std::marker::PhantomData;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as RawSocket, SocketAddr};

/// How many messages go to the kernel at once: their ACKs must fit the receive buffer.
const BATCH: usize = 64;
/// The kernel fills at most this much for one message of a dump.
const RECEIVE: usize = 32 * 1024;
/// A namespace that changes faster than it can be read is read as it is.
const DUMP_ATTEMPTS: u32 = 10;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const ATTRIBUTE_TEXT: u16 = 1;
/// Length of the header that an error repeats.
const HEADER: usize = 16;

/// One request and its flags beside `NLM_F_REQUEST` and `NLM_F_ACK`.
#[derive(Debug, Clone)]
pub(crate) struct Request<M = RouteNetlinkMessage> {
    pub(crate) message: M,
    pub(crate) flags: u16,
}

impl<M> Request<M> {
    pub(crate) const fn new(message: M, flags: u16) -> Self {
        Self { message, flags }
    }
}

/// An open socket in one namespace, for messages of one kind.
#[derive(Debug)]
pub(crate) struct Socket<M = RouteNetlinkMessage> {
    raw: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
    messages: PhantomData<M>,
}

impl Socket {
    /// Opens an rtnetlink socket in the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        Self::of(NETLINK_ROUTE)
    }
}

impl<M: NetlinkSerializable + NetlinkDeserializable + Clone> Socket<M> {
    /// Opens a socket of this protocol in the namespace of the calling thread.
    pub(crate) fn of(protocol: isize) -> io::Result<Self> {
        let mut raw = RawSocket::new(protocol)?;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(0, 0))?;
        // An ACK without the request repeated, errors with a text, filters of dumps honoured.
        raw.set_cap_ack(true)?;
        raw.set_ext_ack(true)?;
        raw.set_netlink_get_strict_chk(true)?;
        let buffer = Vec::with_capacity(RECEIVE);
        Ok(Self { raw, sequence: 0, buffer, messages: PhantomData })
    }

    /// Runs all requests, in order, whatever becomes of those before; says what became of each.
    /// An error of its own is one of the socket, not of a request.
    pub(crate) fn run(&mut self, requests: Vec<Request<M>>) -> io::Result<Vec<io::Result<()>>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        loop {
            let batch: Vec<Request<M>> = requests.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(results);
            }
            let count = batch.len();
            let first = self.send(batch, NLM_F_ACK)?;
            self.acknowledged(first, count, &mut results)?;
        }
    }

    /// Runs one request.
    pub(crate) fn run_one(&mut self, request: Request<M>) -> io::Result<()> {
        self.run(vec![request])?.into_iter().collect()
    }

    /// Asks for one object.
    pub(crate) fn get(&mut self, message: M) -> io::Result<M> {
        let sequence = self.send(vec![Request::new(message, 0)], 0)?;
        loop {
            for message in self.receive()? {
                match (message.header.sequence_number == sequence, message.payload) {
                    (true, NetlinkPayload::InnerMessage(found)) => return Ok(found),
                    (true, NetlinkPayload::Error(error)) => {
                        return Err(refusal(&error, message.header.flags));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Asks for all objects; again when they changed meanwhile.
    pub(crate) fn dump(&mut self, message: &M) -> io::Result<Vec<M>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            if self.dump_each(message, |one| found.push(one))? {
                break;
            }
        }
        Ok(found)
    }

    /// Asks for all objects, once, and looks at each; says whether they stayed as they were.
    pub(crate) fn dump_each(&mut self, message: &M, mut look: impl FnMut(M)) -> io::Result<bool> {
        let sequence = self.send(vec![Request::new(message.clone(), NLM_F_DUMP)], 0)?;
        let mut whole = true;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => look(inner),
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.abs()));
                    }
                    NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::Error(error) => {
                        return Err(refusal(&error, message.header.flags));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Sends all in one go; the number of the first.
    fn send(&mut self, requests: Vec<Request<M>>, flags: u16) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for Request { message, flags: own } in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags | own;
            header.sequence_number = self.sequence;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        let sent = self.raw.send(&bytes, 0)?;
        if sent == bytes.len() { Ok(first) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn acknowledged(
        &mut self,
        first: u32,
        count: usize,
        results: &mut Vec<io::Result<()>>,
    ) -> io::Result<()> {
        let mut expected = first;
        let mut missing = count;
        while missing > 0 {
            for message in self.receive()? {
                if message.header.sequence_number != expected {
                    continue;
                }
                let NetlinkPayload::Error(error) = message.payload else { continue };
                let result = match error.code {
                    None => Ok(()),
                    Some(_) => Err(refusal(&error, message.header.flags)),
                };
                results.push(result);
                expected = expected.wrapping_add(1);
                missing -= 1;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<M>>> {
        self.buffer.clear();
        self.raw.recv(&mut self.buffer, 0)?;
        Ok(parse(&self.buffer))
    }
}

/// The messages in what was received at once. What cannot be understood is none of ours: others
/// may have objects of kinds that are newer than this program.
pub(crate) fn parse<M: NetlinkDeserializable>(mut bytes: &[u8]) -> Vec<NetlinkMessage<M>> {
    let mut messages = Vec::new();
    while let Some(length) = bytes.first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        match NetlinkMessage::deserialize(bytes) {
            Ok(message) => messages.push(message),
            Err(error) => tracing::debug!(%error, "netlink message not understood"),
        }
        bytes = bytes.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// The kernel's error, with its own words where it has some. The number is kept: see [`errno`].
fn refusal(error: &ErrorMessage, flags: u16) -> io::Error {
    let plain = error.to_io();
    let text = (flags & NLM_F_ACK_TLVS != 0).then(|| text(&error.header)).flatten();
    match text {
        None => plain,
        Some(text) => io::Error::new(plain.kind(), Refusal { text, plain }),
    }
}

fn text(payload: &[u8]) -> Option<String> {
    NlasIterator::new(payload.get(HEADER..)?)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == ATTRIBUTE_TEXT)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').into())
}

/// The number and the kernel's own words.
#[derive(Debug, thiserror::Error)]
#[error("{plain}: {text}")]
struct Refusal {
    text: String,
    plain: io::Error,
}

/// The kernel's number, also of an error that has a text.
pub(crate) fn errno(error: &io::Error) -> Option<nix::errno::Errno> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>());
    let number = inner.map_or(error.raw_os_error(), |refusal| refusal.plain.raw_os_error());
    number.map(nix::errno::Errno::from_raw)
}
