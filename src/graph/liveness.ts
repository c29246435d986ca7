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
  /** Constants that some output needs, those in mapped files included but for tables of which rows are gathered. */
  readonly constantBytes: number;
  readonly inputBytes: number;
  /** Results of nodes: the most that are there at one time, outputs to their end. */
  readonly resultBytes: number;
}

const BYTES = { float32: 4, int64: 8 } as const;

function sizeBytes(value: Value, sizes: Sizes): number {
  return value.shape.reduce<number>((product, dim) => product * evaluateDim(dim, sizes), BYTES[value.dtype]);
}

const isConstant = ({ source: { kind } }: Value): boolean => kind === 'constant' || kind === 'external';

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

const isHalf = (node: GraphNode): boolean => node.op === 'HalfMatMul';

/** Of a value that is multiplied in half precision: itself in float16, and the float32 that a provider without such products makes of it again. */
const HALF_COPIES = (2 + 4) / 4;

function resultBytes(graph: Subgraph, sizes: Sizes): number {
  const order = runtimeOrder(reachable(graph).nodes);
  const copies = new Map<Value, Value>();
  for (const value of order.filter(isHalf).flatMap(({ inputs }) => inputs)) if (!isConstant(value)) copies.set(value, { ...value, source: { kind: 'input' } });
  const copiesFor = (node: GraphNode): readonly Value[] => (isHalf(node) ? node.inputs.flatMap((input) => copies.get(input) ?? []) : []);
  const lastRead = new Map<Value, number>();
  order.forEach((node, i) => [...reads(node), ...copiesFor(node)].forEach((value) => lastRead.set(owner(value), i)));
  for (const { value } of graph.outputs) lastRead.set(owner(value), order.length);
  const alive = new Map<Value, number>();
  let [now, most] = [0, 0];
  order.forEach((node, i) => {
    for (const value of node.outputs) {
      if (owner(value) !== value || !lastRead.has(value)) continue;
      alive.set(value, sizeBytes(value, sizes));
      now += sizeBytes(value, sizes);
    }
    for (const copy of copiesFor(node)) {
      if (alive.has(copy)) continue;
      alive.set(copy, HALF_COPIES * sizeBytes(copy, sizes));
      now += HALF_COPIES * sizeBytes(copy, sizes);
    }
    most = Math.max(most, now + (isScan(node) ? resultBytes(node.attributes.body, sizes) : 0));
    for (const value of new Set([...reads(node), ...copiesFor(node)].map(owner))) {
      if (lastRead.get(value) !== i) continue;
      now -= alive.get(value) ?? 0;
      alive.delete(value);
    }
  });
  return most;
}

/** Nodes of a graph and of the loops in it. */
function allNodes(graph: Subgraph): readonly GraphNode[] {
  return reachable(graph).nodes.flatMap((node) => (isScan(node) ? [node, ...allNodes(node.attributes.body)] : [node]));
}

/** Does the runtime, where it packs, multiply by a copy of this input in an order of its own? */
const isPackable = (node: GraphNode, input: Value): boolean => node.op === 'FusedMatMul' && node.inputs[1] === input && input.source.kind === 'external' && input.shape.length === 2;

/** Of a table in a mapped file, the rows that are gathered come into memory. */
const isGathered = (node: GraphNode, input: Value): boolean => node.op === 'Gather' && node.inputs[0] === input && input.source.kind === 'external';

/** A file's pages are there once, under however many names; each packed copy, one for each way in which a weight is multiplied, besides. */
function constantBytes(graph: Subgraph, packed: boolean): number {
  const places = new Map<string, number>();
  for (const node of allNodes(graph)) {
    for (const input of node.inputs) {
      if (!isConstant(input) || isGathered(node, input)) continue;
      const place = input.source.kind === 'external' ? `${input.source.location}:${input.source.offsetBytes}` : input.name;
      if (isHalf(node)) places.set(`${place}, float16`, HALF_COPIES * sizeBytes(input, {}));
      else places.set(packed && isPackable(node, input) ? `${place}, packed ${JSON.stringify(node.attributes)}` : place, sizeBytes(input, {}));
    }
  }
  return [...places.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** `packed`: the runtime packs weights that it multiplies by, and lets go of those it needs in no other form. INTERNAL when a symbol of the graph has no size. */
export function graphMemory(graph: Graph, sizes: Sizes, { packed = false }: { readonly packed?: boolean } = {}): GraphMemory {
  if (graph.outputs.length === 0) throw new StillhouseError('INTERNAL', 'memory of a graph: expected outputs, got none');
  const total = (values: readonly Value[]): number => values.reduce((sum, value) => sum + sizeBytes(value, sizes), 0);
  return { constantBytes: constantBytes(graph, packed), inputBytes: total(graph.inputs), resultBytes: resultBytes(graph, sizes) };
}
