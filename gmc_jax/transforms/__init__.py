"""Transforms: the optax transformations that methods are made of.

By what they do, or where they stand:

    average updates           averaged, error_feedback, momentum_correction,
                              track_gradients, variance_reduced, partial_sync
    average parameters        adapt_then_combine, combine_then_adapt, push_sum,
                              exact_diffusion, elastic_sync, delayed_sync,
                              pull_to_anchor, difference_compression
    around error feedback     global_momentum, detached, average_residuals,
                              at_virtual_iterate
    around a gossip step      quasi_global_momentum
    local steps               periodic, slow_momentum; maintain_buffers, reset_buffers
                              and average_buffers for the inner optimizer; streaming,
                              with mix, corrected and eager
    full gradients            epochs, projected; full_gradient_due, svrg_snapshot and
                              set_full_gradient for the loop
    in the step               query
    in front of a method      clip_by_local_norm
    around a method           accumulate, skip_nonfinite, leave_out_nonfinite
    around optax's own        with_float32_state
"""
