// Command etcd-put writes values of 1 KB to etcd over several connections, one put after another
// on each, and prints the puts per second.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func main() {
	endpoint := os.Args[1]
	connections, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	seconds, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	value := strings.Repeat("x", 1024)
	deadline := time.Now().Add(time.Duration(seconds) * time.Second)
	started := time.Now()
	counts := make([]int, connections)
	var group sync.WaitGroup
	for i := range counts {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Now().Before(deadline) {
				key := fmt.Sprintf("/registry/configmaps/bench/%d-%d", i, counts[i])
				if _, err := client.Put(context.Background(), key, value); err != nil {
					log.Fatal(err)
				}
				counts[i]++
			}
		}()
	}
	group.Wait()
	total := 0
	for _, count := range counts {
		total += count
	}
	fmt.Printf("%.0f\n", float64(total)/time.Since(started).Seconds())
}
