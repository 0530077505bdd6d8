//! Options of DHCPv4 by number and by name (RFC 2132 and the registry that it begins).

/// The numbers that this room knows.
pub(super) mod code {
    /// Fills up, and has no length.
    pub(crate) const PAD: u8 = 0;
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTERS: u8 = 3;
    pub(crate) const NAME_SERVERS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN_NAME: u8 = 15;
    pub(crate) const STATIC_ROUTES: u8 = 33;
    pub(crate) const REQUESTED_ADDRESS: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const OVERLOAD: u8 = 52;
    pub(crate) const MESSAGE_TYPE: u8 = 53;
    pub(crate) const SERVER: u8 = 54;
    pub(crate) const REQUEST_LIST: u8 = 55;
    pub(crate) const MESSAGE: u8 = 56;
    pub(crate) const MAX_SIZE: u8 = 57;
    pub(crate) const RENEWAL: u8 = 58;
    pub(crate) const REBINDING: u8 = 59;
    pub(crate) const VENDOR_CLASS: u8 = 60;
    pub(crate) const CLIENT: u8 = 61;
    pub(crate) const USER_CLASS: u8 = 77;
    pub(crate) const DOMAIN_SEARCH: u8 = 119;
    pub(crate) const CLASSLESS_ROUTES: u8 = 121;
    /// Ends the options, and has no length.
    pub(crate) const END: u8 = 255;
    /// What Microsoft's servers sent before 121 was there, in the same form.
    pub(crate) const CLASSLESS_ROUTES_MS: u8 = 249;
}

/// What is asked for where the list does not say otherwise. Classless routes come first, as RFC 3442 wants.
pub(super) const DEFAULT: [u8; 12] = [
    code::SUBNET_MASK,
    code::CLASSLESS_ROUTES,
    code::ROUTERS,
    code::STATIC_ROUTES,
    code::NAME_SERVERS,
    code::DOMAIN_NAME,
    code::DOMAIN_SEARCH,
    code::LEASE_TIME,
    code::SERVER,
    code::RENEWAL,
    code::REBINDING,
    code::CLASSLESS_ROUTES_MS,
];

/// Options of the protocol itself, which nobody provides by hand: another value of them would be another message.
pub(super) const OWN: [u8; 6] = [
    code::PAD,
    code::OVERLOAD,
    code::MESSAGE_TYPE,
    code::SERVER,
    code::REQUEST_LIST,
    code::END,
];

/// Names for options, the Go plugin's six first.
const NAMES: [(&str, u8); 13] = [
    ("dhcp-client-identifier", code::CLIENT),
    ("subnet-mask", code::SUBNET_MASK),
    ("routers", code::ROUTERS),
    ("host-name", code::HOST_NAME),
    ("user-class", code::USER_CLASS),
    ("vendor-class-identifier", code::VENDOR_CLASS),
    ("domain-name-servers", code::NAME_SERVERS),
    ("domain-name", code::DOMAIN_NAME),
    ("domain-search", code::DOMAIN_SEARCH),
    ("static-routes", code::STATIC_ROUTES),
    ("classless-static-routes", code::CLASSLESS_ROUTES),
    ("requested-address", code::REQUESTED_ADDRESS),
    ("lease-time", code::LEASE_TIME),
];

/// The number of an option that a configuration names by name or by number.
pub(super) fn parse(text: &str) -> Option<u8> {
    let named = NAMES.iter().find(|(name, _)| *name == text);
    named.map(|(_, code)| *code).or_else(|| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_names_and_numbers() {
        assert_eq!(parse("host-name"), Some(12));
        assert_eq!(parse("12"), Some(12));
        assert_eq!(parse("dhcp-client-identifier"), Some(61));
        for bad in ["", "256", "-1", "Host-Name", "1x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
