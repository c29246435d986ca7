/** What a step minimises. */
import type { Graph } from '../graph/graph.ts';
import { crossEntropy } from './row-loss.ts';
import type { RowLoss } from './row-loss.ts';

export interface Objective {
  /** Of each learned token, from its row of logits; written for the graph that the step is. What it is given comes with the packed row, by name. */
  readonly rowLoss: (g: Graph) => RowLoss;
}

/** The labels alone. */
export const CROSS_ENTROPY: Objective = { rowLoss: () => crossEntropy };
