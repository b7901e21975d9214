"""A FastAPI app as many have one, with actors inside where two requests must not meet: the stock of each product.

kubeactor dev
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

from kubeactor import Actor, Binding, Env, Key, Problem

LEFT = Key("left", int, 0)
CATALOGUE = {"pen": "A blue pen", "book": "An empty book"}


class SoldOut(Problem):
    """Less is left than was asked for."""

    status = 409
    left: int


class Stock(Actor):
    """What is left of one product."""

    async def left(self) -> int:
        return await self.ctx.storage.get(LEFT)

    async def deliver(self, count: int) -> int:
        await self.ctx.storage.put(LEFT, left := await self.left() + count)
        return left

    async def take(self, count: int) -> int:
        if (left := await self.left()) < count:
            raise SoldOut(f"{count} is more than {left}", left=left)
        await self.ctx.storage.put(LEFT, left - count)
        return left - count


class Warehouse(Env):
    STOCK: Binding[Stock]


class Order(BaseModel):
    """How many of it."""

    count: int = Field(ge=1, le=1000)


def stock(request: Request, sku: str) -> Stock:
    """The stub of the product in the path."""
    if sku not in CATALOGUE:
        raise HTTPException(404, f"there is no {sku}")
    return Warehouse.of(request).STOCK.id_from_name(sku)


Product = Annotated[Stock, Depends(stock)]
app = FastAPI(title="Warehouse")


@app.get("/products")
async def products() -> dict[str, str]:
    return CATALOGUE


@app.get("/products/{sku}")
async def product(sku: str, stock: Product) -> dict[str, str | int]:
    return {"text": CATALOGUE[sku], "left": await stock.left()}


@app.post("/products/{sku}/deliveries")
async def delivery(order: Order, stock: Product) -> dict[str, int]:
    return {"left": await stock.deliver(order.count)}


@app.post("/products/{sku}/orders")
async def order(order: Order, stock: Product) -> dict[str, int]:
    return {"left": await stock.take(order.count)}  # SoldOut becomes a 409 by itself
