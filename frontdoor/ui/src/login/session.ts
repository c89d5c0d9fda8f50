// SPDX-License-Identifier: Apache-2.0
// Who is logged in. The cookie is the browser's affair; this only asks.
import { type QueryClient, useQuery, useQueryClient } from "@tanstack/react-query";
import createClient from "openapi-fetch";
import { useCallback } from "react";
import { take } from "../api/client";
import { ApiError, toApiError } from "../api/problem";
import type { components, paths } from "./schema";

export type Session = components["schemas"]["Session"];

const front = createClient<paths>({ baseUrl: "/" });
export const sessionKey = ["session"] as const;

/** A session, or why there is none: nobody logged in, it ended, or its user left. */
export type Who = Session | "nobody" | "ended" | "left";

export const isSession = (who: Who | undefined): who is Session => typeof who === "object";

export function useSession() {
  return useQuery<Who, ApiError>({
    queryKey: sessionKey,
    queryFn: async ({ signal }) => {
      try {
        return await take(front.GET("/auth/v1/session", { signal }));
      } catch (thrown) {
        if (thrown instanceof ApiError && thrown.status === 401) return "nobody";
        throw thrown;
      }
    },
  });
}

export async function login(user: string, password: string): Promise<void> {
  await take(front.POST("/auth/v1/login", { body: { user, password } }));
}

/** useLogout ends the session and forgets all that was fetched under it. */
export function useLogout(): () => Promise<void> {
  const client = useQueryClient();
  return useCallback(async () => {
    try {
      await take(front.POST("/auth/v1/logout"));
    } catch (thrown) {
      const error = toApiError(thrown);
      if (!error.sessionOver) throw error;
    }
    endSession(client, "left");
  }, [client]);
}

/** endSession shows the login; nothing that one user fetched is there for the next. */
export function endSession(client: QueryClient, why: "ended" | "left"): void {
  client.setQueryData<Who>(sessionKey, why);
  client.removeQueries({ predicate: (q) => q.queryKey[0] !== sessionKey[0] });
}
