//! What the docs say of the code is what the code says.

#[test]
fn the_life_diagram_is_printed_from_the_table() {
    let page = include_str!("../ARCHITECTURE.md");
    let block = page.split("<!-- life diagram -->\n```mermaid\n").nth(1).expect("a diagram");
    let block = block.split("```").next().expect("its end");
    assert_eq!(block, roundel_core::life_diagram(), "print it anew from `life_diagram()`");
}

#[test]
fn the_readme_names_every_event() {
    let page = include_str!("../README.md");
    for name in [
        "spawned",
        "online",
        "ready",
        "handed_off",
        "accepted",
        "declined",
        "redispatched",
        "refused",
        "suicide",
        "killing",
        "channel_closed",
        "exited",
        "given_up",
        "bound",
        "stopping",
        "accept_failed",
        "journal_stopped",
    ] {
        assert!(page.contains(&format!("`{name}`")), "{name} is missing");
    }
}
