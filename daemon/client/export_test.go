// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// Hasten makes pauses and the silence that a stream may keep short.
func (c *Client) Hasten(backoff, idle time.Duration) {
	c.backoff, c.idle = backoff, idle
}
