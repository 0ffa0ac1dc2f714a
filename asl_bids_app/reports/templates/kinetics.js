// ΔM/M0 per mL/100 g/min: the equations of asl_bids_app/kinetics.py for one measurement.
//   R = 2 α / (6000 λ) · exp(-x) · φ(k, d),   φ(k, d) = (1 - exp(-k d)) / k
// arrival 0 (PCASL, CASL): d = clip(w + τ - ATT, 0, τ), k = 1/T1t, x = ATT/T1b + max(w - ATT, 0)/T1t
// arrival 1 (PASL):        d = clip(w - ATT, 0, τ),     k = 1/T1b - 1/T1t, x = w/T1t + k·min(ATT, w)
// arrival 2 (VSASL):       d = min(w, ATT, τ),          k = 1/T1b - 1/T1t, x = w/T1t
"use strict";
const Kinetics = {
  arrived(rate, duration) {
    const x = rate * duration;
    return Math.abs(x) < 1e-9 ? duration : (-Math.expm1(-x) / x) * duration;
  },

  // w: delay at the slice (s); tau: label or bolus duration (s), null where nothing cuts it.
  response(arrival, w, tau, efficiency, constants, att) {
    const { t1_blood: t1b, t1_tissue: t1t, partition_coefficient: lambda } = constants;
    const cut = tau === null ? Infinity : tau;
    const scale = (2 * efficiency) / (6000 * lambda);
    if (arrival === 0) {
      const length = Math.min(Math.max(w + cut - att, 0), cut);
      const decay = att / t1b + Math.max(w - att, 0) / t1t;
      return scale * Math.exp(-decay) * Kinetics.arrived(1 / t1t, length);
    }
    const rate = 1 / t1b - 1 / t1t;
    if (arrival === 1) {
      const length = Math.min(Math.max(w - att, 0), cut);
      const decay = w / t1t + rate * Math.min(att, w);
      return scale * Math.exp(-decay) * Kinetics.arrived(rate, length);
    }
    const length = Math.max(Math.min(w, att, cut), 0);
    return scale * Math.exp(-w / t1t) * Kinetics.arrived(rate, length);
  },
};
