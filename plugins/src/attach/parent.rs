//! The interface that a container's stands on, which configurations call `master`.

use cni_conf::error::{Code, Error};
use cni_conf::json::{self, FieldError};
use cni_conf::names::IfName;
use cni_conf::request::Request;
use serde::Deserialize;

use super::container::Container;
use crate::host::Rtnl;
use crate::host::rtnl::{Family, Link, RouteFilter};

/// `master`, `linkInContainer` and `mtu`, as they come.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    master: String,
    link_in_container: bool,
    mtu: i64,
}

/// Which interface it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its name; none for the interface of the default route.
    pub name: Option<IfName>,
    /// It is one of the container's.
    pub in_container: bool,
    /// MTU in bytes of the interface that stands on it; the same as its own if none.
    mtu: Option<u32>,
}

impl Parent {
    /// Reads the keys of a configuration.
    ///
    /// # Errors
    /// A name that no interface can have, an MTU that is none.
    pub fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let name = match wire.master.as_str() {
            "" => None,
            name => Some(
                IfName::try_from(name)
                    .map_err(|error| Error::config(format!("field \"master\": {error}")))?,
            ),
        };
        Ok(Self {
            name,
            in_container: wire.link_in_container,
            mtu: super::settings::mtu(wire.mtu)?,
        })
    }

    /// Finds it over the socket of the namespace that it is in.
    ///
    /// # Errors
    /// Where there is no such interface, or no default route.
    pub fn find(&self, rtnl: &Rtnl) -> Result<Link, Error> {
        let found = match &self.name {
            Some(name) => rtnl.link_by_name(name.as_str())?,
            None => of_default_route(rtnl)?,
        };
        found.ok_or_else(|| self.missing())
    }

    /// The socket of the namespace that it is in.
    pub fn socket<'a>(&self, host: &'a Rtnl, container: &'a Container) -> &'a Rtnl {
        if self.in_container {
            &container.rtnl
        } else {
            host
        }
    }

    /// The MTU of an interface that stands on `link`, if one is asked for.
    ///
    /// # Errors
    /// One that is above the link's own.
    pub fn mtu_on(&self, link: &Link) -> Result<Option<u32>, Error> {
        match self.mtu {
            Some(mtu) if mtu > link.mtu => Err(FieldError::new(
                "mtu",
                mtu,
                format!("{} below has an MTU of {} bytes", link.name, link.mtu),
            )
            .into()),
            mtu => Ok(mtu),
        }
    }

    /// Says for STATUS whether it is there. What is in a container can't be told beforehand.
    ///
    /// # Errors
    /// [`Code::NotAvailable`] where it is missing.
    pub fn status(&self, host: &Rtnl) -> Result<(), Error> {
        if self.in_container {
            return Ok(());
        }
        let link = self.find(host).map_err(|error| Error {
            code: Code::NotAvailable,
            ..error
        })?;
        self.mtu_on(&link).map(drop)
    }

    fn missing(&self) -> Error {
        let place = if self.in_container {
            "the container"
        } else {
            "the host"
        };
        match &self.name {
            Some(name) => Error::new(
                Code::Conflict,
                format!("field \"master\": {place} has no interface {name}"),
            )
            .with_details(
                "`ip link` lists them; one that a bond or NetworkManager makes anew takes along what stood on it",
            ),
            None => Error::new(
                Code::Conflict,
                format!("field \"master\" is not set, and {place} has no default route to take the interface of"),
            )
            .with_details("set \"master\" to the name of an interface"),
        }
    }
}

/// The interface of the default route that is preferred; IPv4 comes before IPv6.
fn of_default_route(rtnl: &Rtnl) -> Result<Option<Link>, Error> {
    for family in [Family::V4, Family::V6] {
        let filter = RouteFilter {
            family: Some(family),
            ..RouteFilter::default()
        };
        let routes = rtnl.routes(&filter)?.into_iter();
        let default = routes
            .filter(|route| route.dst.prefix_len() == 0)
            .min_by_key(|route| route.priority);
        if let Some(index) = default.and_then(|route| route.oif) {
            return Ok(rtnl.link_by_index(index)?);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read(conf: Value) -> Result<Parent, Error> {
        Parent::read(&Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "macvlan".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        })
    }

    #[test]
    fn everything_may_be_left_out() {
        let parent = read(json!({})).unwrap();
        assert_eq!(
            (parent.name, parent.in_container, parent.mtu),
            (None, false, None)
        );
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field) in [
            (json!({"master": "eth0/1"}), "master"),
            (json!({"master": "abcdefghijklmnop"}), "master"),
            (json!({"mtu": -1}), "mtu"),
            (json!({"linkInContainer": "yes"}), "linkInContainer"),
        ] {
            let error = read(conf.clone()).unwrap_err();
            assert!(error.msg.contains(field), "{conf}: {error}");
        }
    }

    #[test]
    fn an_mtu_above_the_parents_is_refused() {
        let mut link = Link::default();
        (link.name, link.mtu) = ("eth7".into(), 1500);
        assert_eq!(
            read(json!({"mtu": 1500})).unwrap().mtu_on(&link),
            Ok(Some(1500))
        );
        assert_eq!(read(json!({"mtu": 0})).unwrap().mtu_on(&link), Ok(None));
        let error = read(json!({"mtu": 1501})).unwrap().mtu_on(&link);
        let error = error.unwrap_err();
        assert!(
            error.msg.contains("1501") && error.msg.contains("eth7"),
            "{error}"
        );
    }
}
