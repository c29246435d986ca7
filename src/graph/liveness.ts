/**
 * How much memory a graph's values take when it runs, without running it: the runtime's order of nodes is known, it
 * frees a value after the last node that reads it, and reshaping copies nothing.
 */
import { StillhouseError } from '../contracts/errors.ts';
import type { Graph } from './graph.ts';
import type { GraphNode, Subgraph, Value } from './ops.ts';
import { reachable } from './serialize.ts';
import { evaluateDim } from './shape.ts';

/** Sizes of the symbols in a graph's shapes. */
export type Sizes = Readonly<Record<string, number>>;

export interface GraphMemory {
  /** Constants that some output needs, those in files included. */
  readonly constantBytes: number;
  readonly inputBytes: number;
  /** Results of nodes: the most that are there at one time, outputs to their end. */
  readonly resultBytes: number;
}

const BYTES = { float32: 4, int64: 8 } as const;

function sizeBytes(value: Value, sizes: Sizes): number {
  return value.shape.reduce<number>((product, dim) => product * evaluateDim(dim, sizes), BYTES[value.dtype]);
}

/** The value whose memory this one shares. */
function owner(value: Value): Value {
  const { source } = value;
  const shared = source.kind === 'node' && source.node.op === 'Reshape' ? source.node.inputs[0] : undefined;
  return shared === undefined ? value : owner(shared);
}

/** Back from the last node that nothing consumes, each node's latest input first: the default order of onnxruntime's sequential executor. */
function runtimeOrder(nodes: readonly GraphNode[]): readonly GraphNode[] {
  const place = new Map(nodes.map((node, i) => [node, i]));
  const inputsOf = (node: GraphNode): GraphNode[] => [...new Set(reads(node).flatMap(({ source }) => (source.kind === 'node' && place.has(source.node) ? [source.node] : [])))];
  const consumed = new Set(nodes.flatMap(inputsOf));
  const open = nodes.filter((node) => !consumed.has(node)).map((node) => ({ node, done: false }));
  const seen = new Set<GraphNode>();
  const order: GraphNode[] = [];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (next.done) order.push(next.node);
    else if (!seen.has(next.node)) {
      seen.add(next.node);
      open.push({ node: next.node, done: true });
      const inputs = inputsOf(next.node).toSorted((a, b) => (place.get(a) ?? 0) - (place.get(b) ?? 0));
      for (const node of inputs) open.push({ node, done: false });
    }
  }
  return order;
}

const isScan = (node: GraphNode): node is GraphNode<'Scan'> => node.op === 'Scan';

/** All that a node reads; a loop reads what its body takes from outside. */
function reads(node: GraphNode): readonly Value[] {
  return isScan(node) ? [...node.inputs, ...reachable(node.attributes.body).captured] : node.inputs;
}

function resultBytes(graph: Subgraph, sizes: Sizes): number {
  const order = runtimeOrder(reachable(graph).nodes);
  const lastRead = new Map<Value, number>();
  order.forEach((node, i) => reads(node).forEach((value) => lastRead.set(owner(value), i)));
  for (const { value } of graph.outputs) lastRead.set(owner(value), order.length);
  const alive = new Map<Value, number>();
  let [now, most] = [0, 0];
  order.forEach((node, i) => {
    for (const value of node.outputs) {
      if (owner(value) !== value || !lastRead.has(value)) continue;
      alive.set(value, sizeBytes(value, sizes));
      now += sizeBytes(value, sizes);
    }
    most = Math.max(most, now + (isScan(node) ? resultBytes(node.attributes.body, sizes) : 0));
    for (const value of new Set(reads(node).map(owner))) {
      if (lastRead.get(value) !== i) continue;
      now -= alive.get(value) ?? 0;
      alive.delete(value);
    }
  });
  return most;
}

/** INTERNAL when a symbol of the graph has no size. */
export function graphMemory(graph: Graph, sizes: Sizes): GraphMemory {
  if (graph.outputs.length === 0) throw new StillhouseError('INTERNAL', 'memory of a graph: expected outputs, got none');
  const total = (values: readonly Value[]): number => values.reduce((sum, value) => sum + sizeBytes(value, sizes), 0);
  return { constantBytes: total(reachable(graph).constants), inputBytes: total(graph.inputs), resultBytes: resultBytes(graph, sizes) };
}
