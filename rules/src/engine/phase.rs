//! The five phases of a transaction.

/// When a rule runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// 1: the request's head is there.
    RequestHeaders,
    /// 2: the request's body is there.
    RequestBody,
    /// 3: the response's head is there.
    ResponseHeaders,
    /// 4: the response's body is there.
    ResponseBody,
    /// 5: all is over.
    Logging,
}

impl Phase {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::RequestHeaders,
        Self::RequestBody,
        Self::ResponseHeaders,
        Self::ResponseBody,
        Self::Logging,
    ];

    /// The phase that `phase:NAME` means: a number, `request`, `response` or `logging`.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "1" => Some(Self::RequestHeaders),
            "2" | "request" => Some(Self::RequestBody),
            "3" => Some(Self::ResponseHeaders),
            "4" | "response" => Some(Self::ResponseBody),
            "5" | "logging" => Some(Self::Logging),
            _ => None,
        }
    }

    /// 1 to 5.
    pub fn number(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// Whether it belongs to the request.
    pub(super) fn is_request(self) -> bool {
        matches!(self, Self::RequestHeaders | Self::RequestBody)
    }
}
