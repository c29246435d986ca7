/** A model on this machine, whole or some of its layers. */
import { z } from 'zod';

export const modelChoiceShape = {
  /** A catalogue name, `hf:org/name@revision`, or the path of a GGUF file or Hugging Face folder. */
  model: z.string().min(1),
  /** Made of these layers of the model alone, counted from 0, in ascending order. */
  layers: z.array(z.int().min(0)).min(1).optional(),
  /** Made of so many layers of the model: the first ones and the last. */
  keepLayers: z.int().min(1).optional(),
};

interface ChosenLayers {
  readonly layers?: readonly number[] | undefined;
  readonly keepLayers?: number | undefined;
}

/** Refuses a choice that contradicts itself. */
export function checkLayerChoice({ layers, keepLayers }: ChosenLayers, context: z.RefinementCtx): void {
  const reject = (message: string): void => context.addIssue({ code: 'custom', path: ['layers'], message });
  if (layers !== undefined && keepLayers !== undefined) reject('expected either layers or keepLayers, got both');
  else if (layers?.some((layer, i) => i > 0 && layer <= (layers[i - 1] as number)) === true) reject(`expected distinct layers in ascending order, got ${JSON.stringify(layers)}`);
}
