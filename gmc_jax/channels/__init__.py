"""Channels: averages over workers, the only collectives of the package.

    all workers      exact, all_gather, all_reduce, two_phase, majority_vote,
                     mean_of_senders, low_rank, alternating_low_rank
    neighbours       gossip, disagreement, compressed_gossip, gossip_differences,
                     gossip_differences_overlapped, random_gossip
    nothing sent     no_communication, drop_all, simulated_server
    around others    count_entries, count_bytes, join_channels, in_frequencies

The folder `sharded` is for leaves that are split over the devices of a worker.
"""
