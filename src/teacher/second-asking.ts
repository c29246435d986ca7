/** The second asking of a question whose room was used up, by reasoning as a rule, before anything of the answer was written. */
import { DEFAULT_REASONING_TOKENS } from '../contracts/campaign-spec.ts';
import type { EndpointSpec } from '../contracts/campaign-spec.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import type { EndpointTraits } from './endpoint-traits.ts';

export const roomUsedUp = ({ text, finishReason }: Pick<TeacherAnswer, 'text' | 'finishReason'>): boolean => finishReason === 'length' && text.trim() === '';

/** Tokens beyond the first asking's room: all that the endpoint may write, and as much again for reasoning. */
export function secondRoom({ task }: TeacherRequest, endpoint: Pick<EndpointSpec, 'maxTokens'>, { reasons }: EndpointTraits): number {
  const { maxTokens, reasoning } = task.parameters;
  const written = Math.max(0, endpoint.maxTokens - maxTokens);
  const thinking = Math.max(DEFAULT_REASONING_TOKENS, reasoning?.maxTokens ?? 0);
  // Where the model was not known to reason, the first asking had no room for it.
  return written + thinking + (reasons === true || reasoning !== undefined ? 0 : thinking);
}

/** The second answer, with the cost of both. */
export function sumOf(first: TeacherAnswer, second: TeacherAnswer): TeacherAnswer {
  const reasoningTokens = (first.usage.reasoningTokens ?? 0) + (second.usage.reasoningTokens ?? 0);
  return {
    ...second,
    usage: {
      promptTokens: first.usage.promptTokens + second.usage.promptTokens,
      cachedPromptTokens: first.usage.cachedPromptTokens + second.usage.cachedPromptTokens,
      completionTokens: first.usage.completionTokens + second.usage.completionTokens,
      ...(reasoningTokens === 0 ? {} : { reasoningTokens }),
    },
    costUsd: first.costUsd + second.costUsd,
    latencyMs: first.latencyMs + second.latencyMs,
  };
}
