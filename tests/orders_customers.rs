//! The example of a foreign-key join says what it should, whatever is processed when.

#[allow(dead_code)] // its `main`
#[path = "../examples/orders_customers.rs"]
mod example;

#[tokio::test]
async fn the_example_of_orders_and_customers_says_who_ordered_what()
-> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let expected = "\
Four orders:
  o1: a boat for Anna
  o2: a bridge for Bedřich
  o3: oars for Anna
  o4: a map for customer c3, who is not known
Anna is called Hana now, and the bridge is for somebody else:
  o1: a boat for Hana
  o2: a bridge for customer c3, who is not known
  o3: oars for Hana
  o4: a map for customer c3, who is not known";
    assert_eq!(example::run(dir.path()).await?.join("\n"), expected);
    Ok(())
}
