//! Traffic shaping.

use plugins::host::rtnl::{Band, Side, TokenBucket};

use super::support::{Needs, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "token_bucket_is_set_and_read_back",
        Needs::Root,
        token_bucket,
    );
    tests.add("token_bucket_faster_than_32_bits", Needs::Root, fast);
    tests.add(
        "received_traffic_is_redirected_to_an_ifb",
        Needs::Root,
        redirect,
    );
    tests.add("bands_are_made_read_back_and_removed", Needs::Root, bands);
}

fn bands(sandbox: &Sandbox) {
    let (rtnl, link) = (&sandbox.rtnl, sandbox.lone_veth("veth0", None));
    assert_eq!(rtnl.bands_token_bucket(link).unwrap(), None);
    for rate in [125_000, 12_500_000_000] {
        let wanted = TokenBucket {
            rate,
            burst: 50_000,
            limit: 80_000,
        };
        rtnl.set_bands(link, Band::Shaped, &wanted).unwrap();
        let found = rtnl.bands_token_bucket(link).unwrap().unwrap();
        assert_eq!((found.rate, found.limit), (rate, 80_000));
        for (number, net) in [(16, "10.0.0.0/8"), (16, "10.1.0.0/16"), (15, "fd00::/8")] {
            let net = net.parse().unwrap();
            rtnl.add_band_filter(link, number, Side::Source, &net, Band::Free)
                .unwrap();
        }
        assert_eq!(rtnl.token_bucket(link).unwrap(), None);
        assert!(rtnl.stop_shaping(link).unwrap());
        assert!(!rtnl.stop_shaping(link).unwrap());
        assert_eq!(rtnl.bands_token_bucket(link).unwrap(), None);
    }
}

fn near(value: u32, wanted: u32) -> bool {
    value.abs_diff(wanted) <= wanted / 100 + 1
}

fn token_bucket(sandbox: &Sandbox) {
    let link = sandbox.lone_veth("veth0", None);
    assert_eq!(sandbox.rtnl.token_bucket(link).unwrap(), None);
    for rate in [125_000, 12_500_000] {
        let wanted = TokenBucket {
            rate,
            burst: 50_000,
            limit: 80_000,
        };
        sandbox.rtnl.set_token_bucket(link, &wanted).unwrap();
        let found = sandbox.rtnl.token_bucket(link).unwrap().unwrap();
        assert_eq!((found.rate, found.limit), (rate, 80_000));
        assert!(near(found.burst, 50_000), "{found:?}");
    }
    let other = sandbox.lone_veth("veth1", None);
    assert_eq!(sandbox.rtnl.token_bucket(other).unwrap(), None);
    let error = sandbox
        .rtnl
        .set_token_bucket(
            4711,
            &TokenBucket {
                rate: 1000,
                burst: 1000,
                limit: 1000,
            },
        )
        .unwrap_err();
    assert!(error.not_found(), "{error}");
}

fn fast(sandbox: &Sandbox) {
    let link = sandbox.lone_veth("veth0", None);
    let wanted = TokenBucket {
        rate: 12_500_000_000,
        burst: 50_000_000,
        limit: 80_000_000,
    };
    sandbox.rtnl.set_token_bucket(link, &wanted).unwrap();
    let found = sandbox.rtnl.token_bucket(link).unwrap().unwrap();
    assert_eq!(found.rate, wanted.rate);
    assert!(near(found.burst, wanted.burst), "{found:?}");
}

fn redirect(sandbox: &Sandbox) {
    let link = sandbox.lone_veth("veth0", None);
    let ifb = sandbox.rtnl.create_ifb("shape0", Some(1400), true).unwrap();
    assert!(ifb.up && ifb.mtu == 1400 && ifb.kind.as_deref() == Some("ifb"));
    assert!(
        sandbox
            .rtnl
            .create_ifb("shape0", None, true)
            .unwrap_err()
            .already_exists()
    );
    assert_eq!(sandbox.rtnl.ingress_redirect(link).unwrap(), None);
    sandbox.rtnl.redirect_ingress(link, ifb.index).unwrap();
    assert_eq!(
        sandbox.rtnl.ingress_redirect(link).unwrap(),
        Some(ifb.index)
    );
    let error = sandbox.rtnl.redirect_ingress(link, ifb.index).unwrap_err();
    assert!(error.already_exists(), "{error}");
}
