// SPDX-License-Identifier: Apache-2.0
// The one door to the API. Cookies carry the login; nothing is kept here.
import createClient from "openapi-fetch";
import { problemFrom, toApiError } from "./problem";
import type { paths } from "./schema";

export const api = createClient<paths>({ baseUrl: "/api" });

/** take returns the body of a call made by `api`, or throws an ApiError. */
export async function take<T>(
  call: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  const answer = await call.catch((thrown: unknown) => {
    throw toApiError(thrown);
  });
  if (!answer.response.ok) throw problemFrom(answer.response, answer.error);
  return answer.data as T;
}

/** newKey makes an Idempotency-Key: a request repeated with it acts once. */
export const newKey = () => ({ "Idempotency-Key": crypto.randomUUID() });
