/** The rungs of successive halving: when contestants are compared, and how many of them go on. */

export interface Halving {
  /** Epochs after which contestants are compared for the first time. */
  readonly firstRung: number;
  /** η: the share 1/η goes on, for η times as many epochs. */
  readonly reductionFactor: number;
}

/** Epochs that are trained before the comparison of a rung, counted from 0: r·η^rung. */
export const rungEpochs = ({ firstRung, reductionFactor }: Halving, rung: number): number => firstRung * reductionFactor ** rung;

/** ⌈n/η⌉ of n: three become two, and one is never stopped without another to lose to. */
export const survivors = ({ reductionFactor }: Halving, contestants: number): number => Math.ceil(contestants / reductionFactor);
