/// What customers spend, by their country and hour; each result once, when its hour is over.
fn turnover() -> Result<Topology, BuildError> {
    let builder = StreamsBuilder::new();
    let countries = builder.table::<String, String>("countries"); // by customer
    builder
        .stream::<String, i64>("orders") // cents, by customer
        .join_table(&countries, |_, cents, country| (country.clone(), *cents))
        .group_by(|_, (country, _)| country.clone())
        .windowed_by(TimeWindows::of(Duration::from_secs(3600)))
        .aggregate(|| 0, |_, (_, cents), sum| sum + cents)
        .suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
        .to_stream_present()
        .to("turnover");
    builder.build()
}
