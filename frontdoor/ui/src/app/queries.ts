// SPDX-License-Identifier: Apache-2.0
// How requests are repeated, and what an ended session does to all of them.
import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";
import { toApiError } from "../api/problem";
import { endSession, isSession, sessionKey, type Who } from "../login/session";

const maxDelay = 15_000;

export function newQueryClient(): QueryClient {
  const failed = (thrown: unknown) => {
    // A wrong password is 401 too, and ends nothing: there is no session then.
    if (!isSession(client.getQueryData<Who>(sessionKey))) return;
    if (toApiError(thrown).sessionOver) endSession(client, "ended");
  };
  const client: QueryClient = new QueryClient({
    queryCache: new QueryCache({ onError: failed }),
    mutationCache: new MutationCache({ onError: failed }),
    defaultOptions: {
      queries: {
        // Events keep the lists up to date, not the clock or the window's focus.
        staleTime: Infinity,
        refetchOnWindowFocus: false,
        networkMode: "always",
        // What may heal is asked for until it does; the page shows why it waits.
        retry: (_, thrown) => toApiError(thrown).transient,
        retryDelay: (n, thrown) => toApiError(thrown).retryAfter ?? Math.min(maxDelay, 500 * 2 ** n),
      },
      mutations: { networkMode: "always", retry: false },
    },
  });
  return client;
}
